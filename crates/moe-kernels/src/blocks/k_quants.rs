//! Super-blocks of 256: a half-precision scale over small integer scales, one per 16 or 32 numbers.
#![allow(non_camel_case_types, reason = "ggml's names")]

use super::{Format, STRETCH, Scaled, half};
use crate::cpu::simd::Simd;

/// 16 scale bytes (low nibble scale, high nibble offset), 64 bytes of 2-bit numbers, `d`, `dmin`;
/// `x = d·s·q − dmin·o`.
pub(crate) struct Q2_K;

impl Format for Q2_K {
    const BYTES: usize = 84;
    const IN_BLOCK: usize = 8;
    type Stretch = Scaled<true>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], stretch: usize) -> Self::Stretch {
        // SAFETY: the caller's promise.
        let (d, dmin) = unsafe { (half::at::<S>(block, 80), half::at::<S>(block, 82)) };
        let scales = [block[2 * stretch], block[2 * stretch + 1]];
        Scaled {
            q: two_bits(&block[16..80], stretch),
            scale: scales.map(|it| d * f32::from(it & 15)),
            offset: scales.map(|it| -(dmin * f32::from(it >> 4))),
        }
    }
}

/// 32 bytes of third bits, 64 bytes of 2-bit numbers, 16 six-bit scales in 12 bytes, `d`;
/// `x = d·(s − 32)·(q − 4·[third bit clear])`.
pub(crate) struct Q3_K;

impl Format for Q3_K {
    const BYTES: usize = 110;
    const IN_BLOCK: usize = 8;
    type Stretch = Scaled<false>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], stretch: usize) -> Self::Stretch {
        let (high, packed) = (&block[..32], &block[96..108]);
        let mut q = two_bits(&block[32..96], stretch);
        for (q, high) in q.iter_mut().zip(high) {
            *q += (((high >> stretch) & 1) << 2) as i8 - 4;
        }
        // SAFETY: the caller's promise.
        let d = unsafe { half::at::<S>(block, 108) };
        let scale = [2 * stretch, 2 * stretch + 1].map(|group| {
            // Low 4 bits in the first 8 bytes (two rows of nibbles), high 2 bits in the last 4.
            let low = (packed[group % 8] >> (4 * (group / 8))) & 15;
            let top = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
            d * f32::from((low | (top << 4)) as i8 - 32)
        });
        Scaled {
            q,
            scale,
            offset: [0.0; 2],
        }
    }
}

/// `d`, `dmin`, eight six-bit scales and offsets in 12 bytes, 128 bytes of nibbles;
/// `x = d·s·q − dmin·o`.
pub(crate) struct Q4_K;

impl Format for Q4_K {
    const BYTES: usize = 144;
    const IN_BLOCK: usize = 8;
    type Stretch = Scaled<true>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], stretch: usize) -> Self::Stretch {
        // SAFETY: the caller's promise.
        unsafe { six_bits::<S>(block, stretch, nibbles(&block[16..144], stretch)) }
    }
}

/// As [`Q4_K`] with 32 bytes of fifth bits before the nibbles.
pub(crate) struct Q5_K;

impl Format for Q5_K {
    const BYTES: usize = 176;
    const IN_BLOCK: usize = 8;
    type Stretch = Scaled<true>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], stretch: usize) -> Self::Stretch {
        let mut q = nibbles(&block[48..176], stretch);
        for (q, high) in q.iter_mut().zip(&block[16..48]) {
            *q |= (((high >> stretch) & 1) << 4) as i8;
        }
        // SAFETY: the caller's promise.
        unsafe { six_bits::<S>(block, stretch, q) }
    }
}

/// 128 bytes of low nibbles, 64 bytes of upper 2 bits, 16 signed scales, `d`; `x = d·s·(q − 32)`.
pub(crate) struct Q6_K;

impl Format for Q6_K {
    const BYTES: usize = 210;
    const IN_BLOCK: usize = 8;
    type Stretch = Scaled<false>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], stretch: usize) -> Self::Stretch {
        // Each half of 128: 64 bytes of nibbles (64 low, then 64 high), 32 bytes of bit pairs.
        let (part, within) = (stretch / 4, stretch % 4);
        let low = &block[part * 64 + within % 2 * 32..][..32];
        let high = &block[128 + part * 32..][..32];
        let (low_shift, high_shift) = (4 * (within / 2), 2 * within);
        let mut q = [0; STRETCH];
        for ((q, low), high) in q.iter_mut().zip(low).zip(high) {
            *q = ((low >> low_shift) & 15 | ((high >> high_shift) & 3) << 4) as i8 - 32;
        }
        // SAFETY: the caller's promise.
        let d = unsafe { half::at::<S>(block, 208) };
        let scales = [block[192 + 2 * stretch], block[193 + 2 * stretch]];
        Scaled {
            q,
            scale: scales.map(|it| d * f32::from(it as i8)),
            offset: [0.0; 2],
        }
    }
}

/// 32 bytes carry 128 numbers: 2 bits for each of four stretches.
#[inline(always)]
fn two_bits(quants: &[u8], stretch: usize) -> [i8; STRETCH] {
    let bytes = &quants[stretch / 4 * 32..][..32];
    let shift = 2 * (stretch % 4);
    let mut out = [0; STRETCH];
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = ((byte >> shift) & 3) as i8;
    }
    out
}

/// 32 bytes carry two stretches: low nibbles, then high nibbles.
#[inline(always)]
fn nibbles(quants: &[u8], stretch: usize) -> [i8; STRETCH] {
    let bytes = &quants[stretch / 2 * 32..][..32];
    let shift = 4 * (stretch % 2);
    let mut out = [0; STRETCH];
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = ((byte >> shift) & 15) as i8;
    }
    out
}

/// `q` under the scale and offset of one of the eight stretches of [`Q4_K`] and [`Q5_K`]: six bits each, times `d` and `dmin`.
///
/// # Safety
///
/// The processor has the instructions.
#[inline(always)]
unsafe fn six_bits<S: Simd>(block: &[u8], stretch: usize, q: [i8; STRETCH]) -> Scaled<true> {
    let packed = &block[4..16];
    let (scale, offset) = if stretch < 4 {
        (packed[stretch] & 63, packed[stretch + 4] & 63)
    } else {
        let low = packed[stretch + 4];
        (
            low & 15 | (packed[stretch - 4] >> 6) << 4,
            low >> 4 | (packed[stretch] >> 6) << 4,
        )
    };
    // SAFETY: the caller's promise.
    let (d, dmin) = unsafe { (half::at::<S>(block, 0), half::at::<S>(block, 2)) };
    Scaled {
        q,
        scale: [d * f32::from(scale); 2],
        offset: [-(dmin * f32::from(offset)); 2],
    }
}

#[cfg(test)]
mod tests {
    use crate::{BlockFormat, widen};

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
        widen(BlockFormat::Q2_K, &block, &mut out);
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
        widen(BlockFormat::Q3_K, &block, &mut out);
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
        widen(BlockFormat::Q5_K, &block, &mut out);
        assert_eq!((out[160], out[161]), (0.5 * 35.0 * 23.0 - 20.0, -20.0));
        let mut without: [u8; 144] = [0; 144];
        without[..16].copy_from_slice(&block[..16]);
        without[16..].copy_from_slice(&block[48..]);
        widen(BlockFormat::Q4_K, &without, &mut out);
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
        widen(BlockFormat::Q6_K, &block, &mut out);
        assert_eq!(
            (out[200], out[201]),
            (0.5 * -2.0 * 25.0, 0.5 * -2.0 * -32.0)
        );
    }
}
