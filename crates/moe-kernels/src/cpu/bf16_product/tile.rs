//! The innermost product: a tile of at most [`ROWS`] rows and one panel's columns, its sums in registers.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::panel::{Line, VECTORS};

/// Rows of a tile: with three vectors each, 24 of the 32 registers.
pub(super) const ROWS: usize = 8;
/// Numbers of 32 bits in a vector.
pub(super) const LANES: usize = 16;

/// `left [M, deep] · panel`, stored at `out` or added to it. `[pairs, deep, columns, width]`: from row to row of `left` and of `out`,
/// and how much of each is used.
///
/// # Safety
///
/// The processor has the instructions, and all that is named is there; the panel's first `deep` pairs are laid out, and what is added
/// to is initialised.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn tile<const M: usize>(
    left: *const u32,
    panel: &[Line],
    out: *mut f32,
    [pairs, deep, columns, width]: [usize; 4],
    add: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; M];
    for (pair, lines) in panel.chunks_exact(VECTORS).take(deep).enumerate() {
        let lines: [__m512bh; VECTORS] =
            // SAFETY: a line is a vector of pairs, and those of the first `deep` pairs have been laid out.
            std::array::from_fn(|v| unsafe { transmute::<Line, __m512bh>(lines[v]) });
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: pair `pair` of a row that is there.
            let x = unsafe { *left.wrapping_add(row * pairs + pair) };
            let x = as_pairs(_mm512_set1_epi32(x as i32));
            for v in 0..VECTORS {
                sums[v] = _mm512_dpbf16_ps(sums[v], x, lines[v]);
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            let mask = mask16(width.saturating_sub(LANES * v));
            let to = out.wrapping_add(row * columns + LANES * v);
            // SAFETY: lanes past the width are neither read nor written.
            unsafe {
                let sum = match add {
                    true => _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, to)),
                    false => sum,
                };
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn as_pairs(x: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without meaning of their own.
    unsafe { transmute::<__m512i, __m512bh>(x) }
}

/// The first `lanes` of 16.
pub(super) fn mask16(lanes: usize) -> __mmask16 {
    ((1u32 << lanes.min(LANES)) - 1) as __mmask16
}

/// The first `lanes` of 32.
pub(super) fn mask32(lanes: usize) -> __mmask32 {
    ((1u64 << lanes.min(2 * LANES)) - 1) as __mmask32
}
