//! A few rows with a matrix whose columns lie one after the other, as decoding needs it: each number of the matrix is read once, as it
//! lies, and widened on the way. The time is that of reading the matrix.

use burn::tensor::bf16;

use super::{Activations, Stored};
use crate::cpu::level::Level;
use crate::cpu::pieces::filled;
use crate::cpu::product::transposed;

/// Most rows for which reading the matrix once is what counts.
pub(super) const MOST: usize = 8;

/// Sums that run side by side, so that no multiplication waits for the one before: four vectors of sixteen.
const LANES: usize = 64;

/// Numbers of the matrix that one task reads.
const TASK: usize = 1 << 15;

/// A number as it is stored.
pub(crate) trait Number: Copy + Sync {
    fn wide(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// `left · right [rows, columns]`, on all threads. An entry depends on its row and column alone.
pub(super) fn product<T: Number>(left: &Activations<'_>, right: Stored<'_, T>) -> Vec<f32> {
    assert!(right.turned, "a matrix of columns");
    assert_eq!(left.depth, right.rows, "factors of different depth");
    let (rows, depth) = (left.rows, left.depth);
    if depth == 0 {
        return vec![0.0; rows * right.columns];
    }
    let columns = (TASK / depth).max(1);
    let turned = filled(right.columns * rows, columns * rows, |place, out| {
        let columns = place.start / rows * depth..place.end / rows * depth;
        dots(left.numbers, depth, &right.data[columns], out);
    });
    match rows {
        1 => turned,
        _ => transposed(&turned, right.columns, rows),
    }
}

/// `out [columns, rows]`: every row of `x` with every column.
fn dots<T: Number>(x: &[f32], depth: usize, columns: &[T], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn wide<T: Number>(x: &[f32], depth: usize, columns: &[T], out: &mut [f32]) {
            body::<T, true>(x, depth, columns, out);
        }
        #[target_feature(enable = "avx2,fma")]
        fn narrow<T: Number>(x: &[f32], depth: usize, columns: &[T], out: &mut [f32]) {
            body::<T, true>(x, depth, columns, out);
        }
        match Level::of_this_process() {
            // SAFETY: the level says that the processor has these instructions.
            Level::Avx512 => return unsafe { wide(x, depth, columns, out) },
            // SAFETY: as above.
            Level::Avx2 => return unsafe { narrow(x, depth, columns, out) },
            Level::Portable => {}
        }
    }
    body::<T, { cfg!(target_arch = "aarch64") }>(x, depth, columns, out);
}

#[inline(always)]
fn body<T: Number, const FUSED: bool>(x: &[f32], depth: usize, columns: &[T], out: &mut [f32]) {
    let rows = x.len() / depth;
    for (column, out) in columns.chunks_exact(depth).zip(out.chunks_exact_mut(rows)) {
        for (row, out) in x.chunks_exact(depth).zip(out) {
            *out = dot::<T, FUSED>(row, column);
        }
    }
}

#[inline(always)]
fn dot<T: Number, const FUSED: bool>(x: &[f32], column: &[T]) -> f32 {
    let mut sums = [0.0; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    let (column_blocks, column_rest) = column.as_chunks::<LANES>();
    for (x, column) in blocks.iter().zip(column_blocks) {
        for lane in 0..LANES {
            sums[lane] = added::<FUSED>(x[lane], column[lane].wide(), sums[lane]);
        }
    }
    for (lane, (x, number)) in rest.iter().zip(column_rest).enumerate() {
        sums[lane] = added::<FUSED>(*x, number.wide(), sums[lane]);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

/// `x · y + z`, in one instruction where there is one: elsewhere that would be a call.
#[inline(always)]
fn added<const FUSED: bool>(x: f32, y: f32, z: f32) -> f32 {
    match FUSED {
        true => x.mul_add(y, z),
        false => x * y + z,
    }
}
