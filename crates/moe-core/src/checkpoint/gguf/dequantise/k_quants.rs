//! Super-blocks of 256: a half-precision scale over small integer scales, one per 16 or 32 elements.

use super::half_at;

/// 16 scale bytes (low nibble scale, high nibble offset), 64 bytes of 2-bit numbers, `d`, `dmin`;
/// `x = d·s·q − dmin·o`.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (j, out) in out.iter_mut().enumerate() {
        // 32 bytes carry 128 elements: 2 bits for each of four groups of 32.
        let (half, within) = (j / 128, j % 128);
        let q = (quants[half * 32 + within % 32] >> (2 * (within / 32))) & 3;
        let scale = scales[j / 16];
        *out = d * f32::from(scale & 15) * f32::from(q) - dmin * f32::from(scale >> 4);
    }
}

/// 32 bytes of third bits, 64 bytes of 2-bit numbers, 16 six-bit scales in 12 bytes, `d`;
/// `x = d·(s − 32)·(q − 4·[third bit clear])`.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (high, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (j, out) in out.iter_mut().enumerate() {
        let (half, within) = (j / 128, j % 128);
        let q = (quants[half * 32 + within % 32] >> (2 * (within / 32))) & 3;
        let third = (high[j % 32] >> (j / 32)) & 1;
        let q = i32::from(q) - if third == 0 { 4 } else { 0 };
        let group = j / 16;
        // Low 4 bits in the first 8 bytes (two rows of nibbles), high 2 bits in the last 4.
        let low = (packed[group % 8] >> (4 * (group / 8))) & 15;
        let top = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
        let scale = i32::from(low | (top << 4)) - 32;
        *out = d * scale as f32 * q as f32;
    }
}

/// `d`, `dmin`, eight six-bit scales and offsets in 12 bytes, 128 bytes of nibbles;
/// `x = d·s·q − dmin·o`.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = six_bits(packed, group);
        let (scale, offset) = (d * f32::from(scale), dmin * f32::from(offset));
        // 32 bytes carry two groups: low nibbles, then high nibbles.
        let bytes = &quants[group / 2 * 32..][..32];
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = scale * f32::from((byte >> (4 * (group % 2))) & 15) - offset;
        }
    }
}

/// As [`q4_k`] with 32 bytes of fifth bits before the nibbles.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, high, quants) = (&block[4..16], &block[16..48], &block[48..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = six_bits(packed, group);
        let (scale, offset) = (d * f32::from(scale), dmin * f32::from(offset));
        let bytes = &quants[group / 2 * 32..][..32];
        for ((out, byte), high) in out.iter_mut().zip(bytes).zip(high) {
            let low = (byte >> (4 * (group % 2))) & 15;
            let q = low | (((high >> group) & 1) << 4);
            *out = scale * f32::from(q) - offset;
        }
    }
}

/// 128 bytes of low nibbles, 64 bytes of upper 2 bits, 16 signed scales, `d`; `x = d·s·(q − 32)`.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (j, out) in out.iter_mut().enumerate() {
        // Each half of 128: 64 bytes of nibbles (64 low, then 64 high), 32 bytes of bit pairs.
        let (half, within) = (j / 128, j % 128);
        let nibble = (low[half * 64 + within % 64] >> (4 * (within / 64))) & 15;
        let top = (high[half * 32 + within % 32] >> (2 * (within / 32))) & 3;
        let q = i32::from(nibble | (top << 4)) - 32;
        *out = d * f32::from(scales[j / 16] as i8) * q as f32;
    }
}

/// Scale and offset of one of the eight groups of [`q4_k`] and [`q5_k`].
fn six_bits(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        let scale = (low & 15) | ((packed[group - 4] >> 6) << 4);
        let offset = (low >> 4) | ((packed[group] >> 6) << 4);
        (scale, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0.5 in half precision.
    const HALF: [u8; 2] = [0x00, 0x38];
    const ONE: [u8; 2] = [0x00, 0x3c];

    #[test]
    fn q2_k_scales_two_bits_per_16() {
        let mut block = [0; 84];
        (block[80], block[81]) = (HALF[0], HALF[1]);
        (block[82], block[83]) = (ONE[0], ONE[1]);
        // Group 3 covers elements 48..64: scale 6, offset 1. Element 48 is bits 2..4 of byte 16.
        block[3] = 0x16;
        block[16 + 16] = 0b1100;
        let mut out = [0.0; 256];
        q2_k(&block, &mut out);
        assert_eq!(
            (out[48], out[49], out[0]),
            (0.5 * 6.0 * 3.0 - 1.0, -1.0, 0.0)
        );
    }

    #[test]
    fn q3_k_reads_its_scale_from_three_places() {
        let mut block = [0; 110];
        (block[108], block[109]) = (HALF[0], HALF[1]);
        // Group 9 covers 144..160: low nibble in the high half of byte 1, top bits 4..6 of byte 9.
        block[96 + 1] = 0x50;
        block[96 + 9] = 0b10_0000;
        // Element 144 is the second half's byte 16, bits 0..2, third bit 4 of byte 16.
        block[32 + 32 + 16] = 0b10;
        block[16] = 0b1_0000;
        let mut out = [0.0; 256];
        q3_k(&block, &mut out);
        // Scale 0x25 − 32 = 5; with the third bit set q = 2, without it q = −4.
        assert_eq!((out[144], out[145]), (0.5 * 5.0 * 2.0, 0.5 * 5.0 * -4.0));
        assert_eq!(out[0], 0.5 * -32.0 * -4.0);
    }

    #[test]
    fn q4_k_and_q5_k_split_late_scales_over_two_bytes() {
        let mut block = [0; 176];
        block[..4].copy_from_slice(&[HALF[0], HALF[1], ONE[0], ONE[1]]);
        // Group 5: scale 3 + 16·2, offset 4 + 16·1.
        block[4 + 9] = 0x43;
        block[4 + 1] = 2 << 6;
        block[4 + 5] = 1 << 6;
        // Q5_K: element 160 is the high nibble of byte 64 and fifth bit 5 of byte 0.
        block[16] = 1 << 5;
        block[48 + 64] = 0x70;
        let mut out = [0.0; 256];
        q5_k(&block, &mut out);
        assert_eq!((out[160], out[161]), (0.5 * 35.0 * 23.0 - 20.0, -20.0));
        let mut without: [u8; 144] = [0; 144];
        without[..16].copy_from_slice(&block[..16]);
        without[16..].copy_from_slice(&block[48..]);
        q4_k(&without, &mut out);
        assert_eq!((out[160], out[161]), (0.5 * 35.0 * 7.0 - 20.0, -20.0));
    }

    #[test]
    fn q6_k_joins_nibble_and_bit_pair() {
        let mut block = [0; 210];
        (block[208], block[209]) = (HALF[0], HALF[1]);
        // Element 200 = half 1, within 72: high nibble of byte 64 + 8, bits 4..6 of byte 32 + 8.
        block[64 + 8] = 0x90;
        block[128 + 32 + 8] = 0b11_0000;
        block[192 + 12] = 0xFE;
        let mut out = [0.0; 256];
        q6_k(&block, &mut out);
        assert_eq!(
            (out[200], out[201]),
            (0.5 * -2.0 * 25.0, 0.5 * -2.0 * -32.0)
        );
    }
}
