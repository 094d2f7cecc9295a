//! Blocks of 32 with one scale `d` and, in the `_1` types, one offset `m`: `x = d·q + m`.
//!
//! Nibbles come in two halves: number `j` is the low nibble of byte `j`, number `j + 16` the high.
#![allow(non_camel_case_types, reason = "ggml's names")]

use super::{STRETCH, Stretch, half};

/// `d`, 16 bytes of nibbles; `x = d·(q − 8)`.
pub(crate) struct Q4_0;

impl Stretch for Q4_0 {
    const BYTES: usize = 18;
    const IN_BLOCK: usize = 1;

    #[inline(always)]
    fn widen(block: &[u8], _stretch: usize, out: &mut [f32; STRETCH]) {
        let d = half::at(block, 0);
        for (out, q) in out.iter_mut().zip(nibbles(&block[2..18])) {
            *out = d * (f32::from(q) - 8.0);
        }
    }
}

/// `d`, `m`, 16 bytes of nibbles; `x = d·q + m`.
pub(crate) struct Q4_1;

impl Stretch for Q4_1 {
    const BYTES: usize = 20;
    const IN_BLOCK: usize = 1;

    #[inline(always)]
    fn widen(block: &[u8], _stretch: usize, out: &mut [f32; STRETCH]) {
        let (d, m) = (half::at(block, 0), half::at(block, 2));
        for (out, q) in out.iter_mut().zip(nibbles(&block[4..20])) {
            *out = d * f32::from(q) + m;
        }
    }
}

/// `d`, 32 fifth bits, 16 bytes of nibbles; `x = d·(q − 16)`.
pub(crate) struct Q5_0;

impl Stretch for Q5_0 {
    const BYTES: usize = 22;
    const IN_BLOCK: usize = 1;

    #[inline(always)]
    fn widen(block: &[u8], _stretch: usize, out: &mut [f32; STRETCH]) {
        let d = half::at(block, 0);
        let q = with_fifth(nibbles(&block[6..22]), &block[2..6]);
        for (out, q) in out.iter_mut().zip(q) {
            *out = d * (f32::from(q) - 16.0);
        }
    }
}

/// `d`, `m`, 32 fifth bits, 16 bytes of nibbles; `x = d·q + m`.
pub(crate) struct Q5_1;

impl Stretch for Q5_1 {
    const BYTES: usize = 24;
    const IN_BLOCK: usize = 1;

    #[inline(always)]
    fn widen(block: &[u8], _stretch: usize, out: &mut [f32; STRETCH]) {
        let (d, m) = (half::at(block, 0), half::at(block, 2));
        let q = with_fifth(nibbles(&block[8..24]), &block[4..8]);
        for (out, q) in out.iter_mut().zip(q) {
            *out = d * f32::from(q) + m;
        }
    }
}

/// `d`, 32 signed bytes; `x = d·q`.
pub(crate) struct Q8_0;

impl Stretch for Q8_0 {
    const BYTES: usize = 34;
    const IN_BLOCK: usize = 1;

    #[inline(always)]
    fn widen(block: &[u8], _stretch: usize, out: &mut [f32; STRETCH]) {
        let d = half::at(block, 0);
        for (out, byte) in out.iter_mut().zip(&block[2..34]) {
            *out = d * f32::from(*byte as i8);
        }
    }
}

/// The low nibbles of 16 bytes, then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; STRETCH] {
    let mut out = [0; STRETCH];
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[..16]) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    out
}

/// Bit `j` of `high` above nibble `j`.
#[inline(always)]
fn with_fifth(mut q: [u8; STRETCH], high: &[u8]) -> [u8; STRETCH] {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    for (j, q) in q.iter_mut().enumerate() {
        *q |= (((high >> j) & 1) << 4) as u8;
    }
    q
}

#[cfg(test)]
mod tests {
    use crate::{BlockFormat, widen};

    /// d = 0.5 and m = −1 in half precision.
    const D: [u8; 2] = [0x00, 0x38];
    const M: [u8; 2] = [0x00, 0xbc];

    fn block(format: BlockFormat, head: &[u8], bytes: &[(usize, u8)]) -> Vec<u8> {
        let mut block = vec![0; format.bytes()];
        block[..head.len()].copy_from_slice(head);
        for &(at, byte) in bytes {
            block[head.len() + at] = byte;
        }
        block
    }

    #[test]
    fn q4_0_is_scale_times_nibble_less_8() {
        let mut out = [0.0; 32];
        widen(
            BlockFormat::Q4_0,
            &block(BlockFormat::Q4_0, &D, &[(0, 0xF0), (15, 0x9A)]),
            &mut out,
        );
        assert_eq!((out[0], out[16]), (-4.0, 3.5));
        assert_eq!((out[15], out[31]), (1.0, 0.5));
        assert_eq!(out[1], -4.0);
    }

    #[test]
    fn q4_1_is_scale_times_nibble_plus_offset() {
        let mut out = [0.0; 32];
        widen(
            BlockFormat::Q4_1,
            &block(BlockFormat::Q4_1, &[D, M].concat(), &[(3, 0xF2)]),
            &mut out,
        );
        assert_eq!((out[3], out[19], out[0]), (0.0, 6.5, -1.0));
    }

    #[test]
    fn q5_types_take_their_fifth_bit_from_the_word() {
        let mut out = [0.0; 32];
        // Fifth bits of elements 0 and 31.
        let high = [0x01, 0, 0, 0x80];
        widen(
            BlockFormat::Q5_0,
            &block(
                BlockFormat::Q5_0,
                &[&D[..], &high].concat(),
                &[(0, 0x03), (15, 0x10)],
            ),
            &mut out,
        );
        assert_eq!((out[0], out[31], out[1]), (1.5, 0.5, -8.0));
        widen(
            BlockFormat::Q5_1,
            &block(
                BlockFormat::Q5_1,
                &[&D[..], &M, &high].concat(),
                &[(0, 0x03), (15, 0x10)],
            ),
            &mut out,
        );
        assert_eq!((out[0], out[31], out[1]), (8.5, 7.5, -1.0));
    }

    #[test]
    fn q8_0_is_scale_times_signed_byte() {
        let mut out = [0.0; 32];
        widen(
            BlockFormat::Q8_0,
            &block(BlockFormat::Q8_0, &D, &[(0, 0x80), (31, 0x7F)]),
            &mut out,
        );
        assert_eq!((out[0], out[31], out[1]), (-64.0, 63.5, 0.0));
    }
}
