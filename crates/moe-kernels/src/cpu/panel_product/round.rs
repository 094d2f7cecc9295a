//! Activations in bf16.

use std::arch::x86_64::*;
use std::mem::{MaybeUninit, transmute};

use rayon::prelude::*;

use crate::cpu::level::Level;

use super::tile::{LANES, mask16, mask32};

/// Whether the processor multiplies pairs of bf16 numbers.
pub(super) fn is_supported() -> bool {
    Level::of_this_process() == Level::Avx512 && is_x86_feature_detected!("avx512bf16")
}

/// `x [rows, depth]` to the nearest bf16 numbers (ties to even), in pairs `[rows, ⌈depth / 2⌉]`; a missing last one is zero.
pub(super) fn rounded(x: &[f32], depth: usize, parallel: bool) -> Vec<u32> {
    assert!(is_supported());
    let pairs = depth.div_ceil(2);
    let rows = x.len() / depth.max(1);
    let mut out = Vec::with_capacity(rows * pairs);
    let room = &mut out.spare_capacity_mut()[..rows * pairs];
    let some_rows = |(x, out): (&[f32], &mut [MaybeUninit<u32>])| {
        for (x, out) in x.chunks_exact(depth).zip(out.chunks_exact_mut(pairs)) {
            // SAFETY: the instructions are there (asserted).
            unsafe { round_row(x, out) }
        }
    };
    const SOME: usize = 32;
    if rows == 0 {
        return out;
    }
    if parallel {
        x.par_chunks(SOME * depth)
            .zip(room.par_chunks_mut(SOME * pairs))
            .for_each(some_rows);
    } else {
        some_rows((x, room));
    }
    // SAFETY: every row was written.
    unsafe { out.set_len(rows * pairs) };
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn round_row(x: &[f32], out: &mut [MaybeUninit<u32>]) {
    let places = 2 * out.len();
    let out = out.as_mut_ptr().cast::<i16>();
    for start in (0..places).step_by(2 * LANES) {
        let half = |from: usize| {
            let mask = mask16(x.len().saturating_sub(from));
            // SAFETY: entries past the last are not read.
            unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(from)) }
        };
        let both = _mm512_cvtne2ps_pbh(half(start + LANES), half(start));
        // SAFETY: both are 512 bits; places past the last are not written.
        unsafe {
            let both = transmute::<__m512bh, __m512i>(both);
            _mm512_mask_storeu_epi16(out.wrapping_add(start), mask32(places - start), both);
        }
    }
}
