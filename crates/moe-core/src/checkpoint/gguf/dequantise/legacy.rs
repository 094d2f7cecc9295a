//! Blocks of 32 with one scale `d` and, in the `_1` types, one offset `m`: `x = d·q + m`.
//!
//! Nibbles come in two halves: element `j` is the low nibble of byte `j`, element `j + 16` the high.

use super::half_at;

/// `d`, 16 bytes of nibbles; `x = d·(q − 8)`.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (j, &byte) in block[2..].iter().enumerate() {
        out[j] = d * (f32::from(byte & 15) - 8.0);
        out[j + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// `d`, `m`, 16 bytes of nibbles; `x = d·q + m`.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, &byte) in block[4..].iter().enumerate() {
        out[j] = d * f32::from(byte & 15) + m;
        out[j + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// `d`, 32 fifth bits, 16 bytes of nibbles; `x = d·(q − 16)`.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (j, &byte) in block[6..].iter().enumerate() {
        out[j] = d * (fifth(byte & 15, high, j) - 16.0);
        out[j + 16] = d * (fifth(byte >> 4, high, j + 16) - 16.0);
    }
}

/// `d`, `m`, 32 fifth bits, 16 bytes of nibbles; `x = d·q + m`.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (j, &byte) in block[8..].iter().enumerate() {
        out[j] = d * fifth(byte & 15, high, j) + m;
        out[j + 16] = d * fifth(byte >> 4, high, j + 16) + m;
    }
}

/// `d`, 32 signed bytes; `x = d·q`.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(byte as i8);
    }
}

/// Bit `j` of `high` above the nibble.
fn fifth(nibble: u8, high: u32, j: usize) -> f32 {
    f32::from(nibble | (((high >> j) & 1) << 4) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// d = 0.5 and m = −1 in half precision.
    const D: [u8; 2] = [0x00, 0x38];
    const M: [u8; 2] = [0x00, 0xbc];

    fn block<const N: usize>(head: &[u8], bytes: &[(usize, u8)]) -> [u8; N] {
        let mut block = [0; N];
        block[..head.len()].copy_from_slice(head);
        for &(at, byte) in bytes {
            block[head.len() + at] = byte;
        }
        block
    }

    #[test]
    fn q4_0_is_scale_times_nibble_less_8() {
        let mut out = [0.0; 32];
        q4_0(&block(&D, &[(0, 0xF0), (15, 0x9A)]), &mut out);
        assert_eq!((out[0], out[16]), (-4.0, 3.5));
        assert_eq!((out[15], out[31]), (1.0, 0.5));
        assert_eq!(out[1], -4.0);
    }

    #[test]
    fn q4_1_is_scale_times_nibble_plus_offset() {
        let mut out = [0.0; 32];
        q4_1(&block(&[D, M].concat(), &[(3, 0xF2)]), &mut out);
        assert_eq!((out[3], out[19], out[0]), (0.0, 6.5, -1.0));
    }

    #[test]
    fn q5_types_take_their_fifth_bit_from_the_word() {
        let mut out = [0.0; 32];
        // Fifth bits of elements 0 and 31.
        let high = [0x01, 0, 0, 0x80];
        q5_0(
            &block(&[&D[..], &high].concat(), &[(0, 0x03), (15, 0x10)]),
            &mut out,
        );
        assert_eq!((out[0], out[31], out[1]), (1.5, 0.5, -8.0));
        q5_1(
            &block(&[&D[..], &M, &high].concat(), &[(0, 0x03), (15, 0x10)]),
            &mut out,
        );
        assert_eq!((out[0], out[31], out[1]), (8.5, 7.5, -1.0));
    }

    #[test]
    fn q8_0_is_scale_times_signed_byte() {
        let mut out = [0.0; 32];
        q8_0(&block(&D, &[(0, 0x80), (31, 0x7F)]), &mut out);
        assert_eq!((out[0], out[31], out[1]), (-64.0, 63.5, 0.0));
    }
}
