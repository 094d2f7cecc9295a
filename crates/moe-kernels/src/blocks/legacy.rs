//! Blocks of 32 with one scale `d` and, in the `_1` types, one offset `m`: `x = d·q + m`.
//!
//! Nibbles come in two halves: number `j` is the low nibble of byte `j`, number `j + 16` the high.
#![allow(non_camel_case_types, reason = "ggml's names")]

use super::{Format, STRETCH, Scaled, half};
use crate::cpu::simd::Simd;

/// `d`, 16 bytes of nibbles; `x = d·(q − 8)`.
pub(crate) struct Q4_0;

impl Format for Q4_0 {
    const BYTES: usize = 18;
    const IN_BLOCK: usize = 1;
    type Stretch = Scaled<false>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], _stretch: usize) -> Self::Stretch {
        let q = nibbles(&block[2..18]);
        // SAFETY: the caller's promise.
        around_zero(unsafe { half::at::<S>(block, 0) }, less(q, 8))
    }
}

/// `d`, `m`, 16 bytes of nibbles; `x = d·q + m`.
pub(crate) struct Q4_1;

impl Format for Q4_1 {
    const BYTES: usize = 20;
    const IN_BLOCK: usize = 1;
    type Stretch = Scaled<true>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], _stretch: usize) -> Self::Stretch {
        // SAFETY: the caller's promise.
        let (d, m) = unsafe { (half::at::<S>(block, 0), half::at::<S>(block, 2)) };
        from_least([d, m], nibbles(&block[4..20]))
    }
}

/// `d`, 32 fifth bits, 16 bytes of nibbles; `x = d·(q − 16)`.
pub(crate) struct Q5_0;

impl Format for Q5_0 {
    const BYTES: usize = 22;
    const IN_BLOCK: usize = 1;
    type Stretch = Scaled<false>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], _stretch: usize) -> Self::Stretch {
        let q = with_fifth(nibbles(&block[6..22]), &block[2..6]);
        // SAFETY: the caller's promise.
        around_zero(unsafe { half::at::<S>(block, 0) }, less(q, 16))
    }
}

/// `d`, `m`, 32 fifth bits, 16 bytes of nibbles; `x = d·q + m`.
pub(crate) struct Q5_1;

impl Format for Q5_1 {
    const BYTES: usize = 24;
    const IN_BLOCK: usize = 1;
    type Stretch = Scaled<true>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], _stretch: usize) -> Self::Stretch {
        // SAFETY: the caller's promise.
        let (d, m) = unsafe { (half::at::<S>(block, 0), half::at::<S>(block, 2)) };
        from_least([d, m], with_fifth(nibbles(&block[8..24]), &block[4..8]))
    }
}

/// `d`, 32 signed bytes; `x = d·q`.
pub(crate) struct Q8_0;

impl Format for Q8_0 {
    const BYTES: usize = 34;
    const IN_BLOCK: usize = 1;
    type Stretch = Scaled<false>;

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], _stretch: usize) -> Self::Stretch {
        let mut q = [0; STRETCH];
        for (q, byte) in q.iter_mut().zip(&block[2..34]) {
            *q = *byte as i8;
        }
        // SAFETY: the caller's promise.
        around_zero(unsafe { half::at::<S>(block, 0) }, q)
    }
}

#[inline(always)]
fn around_zero(d: f32, q: [i8; STRETCH]) -> Scaled<false> {
    Scaled {
        q,
        scale: [d; 2],
        offset: [0.0; 2],
    }
}

#[inline(always)]
fn from_least([d, m]: [f32; 2], q: [i8; STRETCH]) -> Scaled<true> {
    Scaled {
        q,
        scale: [d; 2],
        offset: [m; 2],
    }
}

#[inline(always)]
fn less(mut q: [i8; STRETCH], zero: i8) -> [i8; STRETCH] {
    q.iter_mut().for_each(|q| *q -= zero);
    q
}

/// The low nibbles of 16 bytes, then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [i8; STRETCH] {
    let mut out = [0; STRETCH];
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[..16]) {
        (*low, *high) = ((byte & 15) as i8, (byte >> 4) as i8);
    }
    out
}

/// Bit `j` of `high` above nibble `j`.
#[inline(always)]
fn with_fifth(mut q: [i8; STRETCH], high: &[u8]) -> [i8; STRETCH] {
    for (j, q) in q.iter_mut().enumerate() {
        *q |= i8::from(high[j / 8] & (1 << (j % 8)) != 0) << 4;
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
