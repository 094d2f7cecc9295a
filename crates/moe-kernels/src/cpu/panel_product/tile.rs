//! The innermost product: a tile of at most [`ROWS`] rows and one panel's columns, its sums in registers.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::ahead::Ahead;
use super::panel::{Line, VECTORS};

/// Rows of a tile: with three vectors each, 24 of the 32 registers.
pub(crate) const ROWS: usize = 8;
/// Numbers of 32 bits in a vector.
pub(super) const LANES: usize = 16;

/// Lanes between two times that the next panels' lines are asked for.
const BLOCK: usize = 8;

/// Of a tile's operands.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Lanes from row to row of the left factor.
    pub(super) left_row: usize,
    /// Lanes of the shared axis that are multiplied.
    pub(super) deep: usize,
    /// Numbers from row to row of the result.
    pub(super) out_row: usize,
    /// Columns of the result.
    pub(super) width: usize,
}

/// A tile for one number format: `sum + x · line`, lane by lane.
macro_rules! tile {
    ($(#[$meta:meta])* $name:ident, $features:literal, $multiply_add:expr) => {
        $(#[$meta])*
        ///
        /// # Safety
        ///
        /// As [`super::Format::tile`].
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name<const M: usize>(
            left: *const u32,
            panel: &[Line],
            out: *mut f32,
            Sizes { left_row, deep, out_row, width }: Sizes,
            add: bool,
            ahead: &mut Ahead,
        ) {
            let blocks = deep.div_ceil(BLOCK);
            let asked = ahead.len().div_ceil(blocks.max(1));
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; M];
            for block in 0..blocks {
                let lanes = block * BLOCK..deep.min((block + 1) * BLOCK);
                let lines = panel[VECTORS * lanes.start..VECTORS * lanes.end].chunks_exact(VECTORS);
                for (lane, lines) in lanes.zip(lines) {
                let lines: [__m512i; VECTORS] =
                    // SAFETY: a line is a vector, and those of the first `deep` lanes have been laid out.
                    std::array::from_fn(|v| unsafe { transmute::<Line, __m512i>(lines[v]) });
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: a lane of a row that is there.
                    let x = _mm512_set1_epi32(unsafe { *left.wrapping_add(row * left_row + lane) } as i32);
                    for v in 0..VECTORS {
                        sums[v] = $multiply_add(sums[v], x, lines[v]);
                    }
                }
                }
                for _ in 0..asked {
                    ahead.ask();
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    let mask = mask16(width.saturating_sub(LANES * v));
                    let to = out.wrapping_add(row * out_row + LANES * v);
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
    };
}

tile!(
    /// Of f32 numbers, one in a lane.
    of_numbers,
    "avx512f",
    |sum, x, line| _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(line), sum)
);

tile!(
    /// Of bf16 numbers, two in a lane.
    of_pairs,
    "avx512f,avx512bw,avx512bf16",
    |sum, x, line| _mm512_dpbf16_ps(sum, as_pairs(x), as_pairs(line))
);

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
