//! A few rows with a matrix, as decoding needs it: each number of the matrix is read once, as it lies, and widened on the way. The time
//! is that of reading the matrix.

use std::{borrow::Cow, ops::Range};

use burn::tensor::bf16;

use super::{Activations, Stored};
use crate::cpu::levels;
use crate::cpu::pieces::filled;
use crate::cpu::product::transposed;
use crate::cpu::simd::Simd;

/// Most rows for which reading the matrix once is what counts.
pub(super) const MOST: usize = 8;

/// Sums that run side by side, so that no multiplication waits for the one before: four vectors of sixteen.
const LANES: usize = 64;

/// Numbers of the matrix that one task reads.
const TASK: usize = 1 << 15;

/// Most columns whose sums a task keeps at hand.
const COLUMNS: usize = 2048;

/// A number as it is stored.
pub(crate) trait Number: Copy + Sync {
    fn wide(self) -> f32;

    /// Activations as they meet such numbers in a product of many rows.
    fn rounded(activations: &[f32]) -> Cow<'_, [f32]> {
        activations.into()
    }
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

    fn rounded(activations: &[f32]) -> Cow<'_, [f32]> {
        match super::rounds_activations() {
            true => activations
                .iter()
                .map(|x| Self::from_f32(*x).wide())
                .collect(),
            false => activations.into(),
        }
    }
}

/// `left · right [rows, columns]`, on all threads. An entry depends on its row and column alone.
pub(super) fn product<T: Number>(left: &Activations<'_>, right: Stored<'_, T>) -> Vec<f32> {
    assert_eq!(left.depth, right.rows, "factors of different depth");
    if left.rows * left.depth * right.columns == 0 {
        return vec![0.0; left.rows * right.columns];
    }
    let rounded = T::rounded(left.numbers);
    let left = Activations::new(&rounded, [left.rows, left.depth]);
    match right.turned {
        true => of_columns(&left, right),
        false => of_rows(&left, right),
    }
}

/// The matrix's columns lie one after the other: each with each row of `left`.
fn of_columns<T: Number>(left: &Activations<'_>, right: Stored<'_, T>) -> Vec<f32> {
    let (rows, depth) = (left.rows, left.depth);
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

/// The matrix's rows lie one after the other: a task sums some of them, of which so many columns, and the tasks' sums are added in
/// their order.
fn of_rows<T: Number>(left: &Activations<'_>, right: Stored<'_, T>) -> Vec<f32> {
    let (rows, depth, columns) = (left.rows, left.depth, right.columns);
    let wide = columns.min(COLUMNS);
    let deep = (TASK / wide.max(1)).max(1);
    let (across, along) = (columns.div_ceil(COLUMNS), depth.div_ceil(deep));
    let room = rows * wide;
    let sums = filled(across * along * room, room, |place, out| {
        let task = place.start / room;
        let (first, row) = (task / along * wide, task % along * deep);
        let part = Part {
            rows: row..(row + deep).min(depth),
            columns: first..(first + wide).min(columns),
            columns_in_all: columns,
        };
        combinations(left.numbers, depth, right.data, &part, out);
    });
    let mut out = vec![0.0; rows * columns];
    for (task, sums) in sums.chunks_exact(room).enumerate() {
        let first = task / along * wide;
        let here = wide.min(columns - first);
        for (row, sums) in sums.chunks_exact(wide).enumerate() {
            let out = &mut out[row * columns + first..][..here];
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
    out
}

/// Some rows and columns of a matrix.
struct Part {
    rows: Range<usize>,
    columns: Range<usize>,
    columns_in_all: usize,
}

levels!(dots<T: Number>, all_dots, (x: &[f32], depth: usize, columns: &[T], out: &mut [f32]));
levels!(combinations<T: Number>, all_combinations, (x: &[f32], depth: usize, matrix: &[T], part: &Part, out: &mut [f32]));

/// `out [columns, rows]`: every row of `x` with every column.
#[inline(always)]
fn all_dots<T: Number, S: Simd>(x: &[f32], depth: usize, columns: &[T], out: &mut [f32]) {
    let rows = x.len() / depth;
    for (column, out) in columns.chunks_exact(depth).zip(out.chunks_exact_mut(rows)) {
        for (row, out) in x.chunks_exact(depth).zip(out) {
            *out = dot::<T, S>(row, column);
        }
    }
}

/// `out [rows, wide]`, which begins as zeros: for every row of `x` the sum of the matrix's rows in the part, each times its number.
#[inline(always)]
fn all_combinations<T: Number, S: Simd>(
    x: &[f32],
    depth: usize,
    matrix: &[T],
    part: &Part,
    out: &mut [f32],
) {
    let rows = x.len() / depth;
    let (wide, here) = (out.len() / rows, part.columns.len());
    let of = |row: usize| &matrix[row * part.columns_in_all + part.columns.start..][..here];
    let mut row = part.rows.start;
    while row + 4 <= part.rows.end {
        let [a, b, c, d] = [of(row), of(row + 1), of(row + 2), of(row + 3)];
        for (x, out) in x.chunks_exact(depth).zip(out.chunks_exact_mut(wide)) {
            let out = &mut out[..here];
            for i in 0..here {
                let sum = added::<S>(x[row], a[i].wide(), out[i]);
                let sum = added::<S>(x[row + 1], b[i].wide(), sum);
                let sum = added::<S>(x[row + 2], c[i].wide(), sum);
                out[i] = added::<S>(x[row + 3], d[i].wide(), sum);
            }
        }
        row += 4;
    }
    for row in row..part.rows.end {
        let numbers = of(row);
        for (x, out) in x.chunks_exact(depth).zip(out.chunks_exact_mut(wide)) {
            for (out, number) in out[..here].iter_mut().zip(numbers) {
                *out = added::<S>(x[row], number.wide(), *out);
            }
        }
    }
}

#[inline(always)]
fn dot<T: Number, S: Simd>(x: &[f32], column: &[T]) -> f32 {
    let mut sums = [0.0; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    let (column_blocks, column_rest) = column.as_chunks::<LANES>();
    for (x, column) in blocks.iter().zip(column_blocks) {
        for lane in 0..LANES {
            sums[lane] = added::<S>(x[lane], column[lane].wide(), sums[lane]);
        }
    }
    for (lane, (x, number)) in rest.iter().zip(column_rest).enumerate() {
        sums[lane] = added::<S>(*x, number.wide(), sums[lane]);
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
fn added<S: Simd>(x: f32, y: f32, z: f32) -> f32 {
    match S::FUSED {
        true => x.mul_add(y, z),
        false => x * y + z,
    }
}
