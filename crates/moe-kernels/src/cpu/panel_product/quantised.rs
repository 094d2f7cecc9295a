//! Products with a matrix in quantised blocks. Many rows go through panels of its widened numbers, and give what the widened matrix
//! gives, bit for bit; a few rows read each block once, as it lies.

#[cfg(target_arch = "x86_64")]
use super::panel::{self, COLUMNS, Part};
#[cfg(target_arch = "x86_64")]
use super::right::{Right, Room};
use super::{Activations, Stored, few_rows::MOST};
use crate::blocks::{Blocks, Format, STRETCH, Stretch, with_format};
use crate::cpu::levels;
use crate::cpu::pieces::filled;
use crate::cpu::product::transposed;
use crate::cpu::simd::Simd;

/// Numbers of the matrix that one task of a few rows reads.
const TASK: usize = 1 << 15;

/// How far ahead of what they read a few rows ask for blocks, in bytes.
const AHEAD: usize = 1 << 11;

/// Numbers that are widened together where there are no panels.
const TOGETHER: usize = 1 << 24;

/// A right factor in blocks.
#[derive(Clone, Copy)]
pub(crate) struct Quantised<'a> {
    blocks: &'a Blocks,
    /// It is their transpose.
    turned: bool,
}

impl<'a> Quantised<'a> {
    /// `[rows, columns]`, or their transpose.
    pub(crate) fn new(blocks: &'a Blocks, turned: bool) -> Self {
        Self { blocks, turned }
    }

    fn dims(&self) -> [usize; 2] {
        let [rows, columns] = self.blocks.dims();
        match self.turned {
            true => [columns, rows],
            false => [rows, columns],
        }
    }

    /// What `with` makes of the widened matrix.
    fn widened<T>(self, with: impl FnOnce(Stored<'_, f32>) -> T) -> T {
        let [rows, columns] = self.blocks.dims();
        let wide = self.blocks.widened();
        let right = Stored::new(&wide, rows, columns);
        with(if self.turned {
            right.transposed()
        } else {
            right
        })
    }
}

/// `left · right [rows, columns]`, on all threads.
pub(crate) fn product(left: &Activations<'_>, right: Quantised<'_>) -> Vec<f32> {
    let [depth, columns] = right.dims();
    assert_eq!(left.depth, depth, "factors of different depth");
    if right.turned && left.rows <= MOST {
        return of_few_rows(left, right.blocks);
    }
    #[cfg(target_arch = "x86_64")]
    if left.rows > MOST && <f32 as super::Format>::has_panels(left.rows) {
        return super::tasks::product(left, right);
    }
    if right.turned && columns * depth > TOGETHER {
        return in_pieces(left, right.blocks);
    }
    right.widened(|right| super::product(left, right))
}

/// `out [rows, columns] += left · right`, on all threads.
pub(crate) fn add_product(left: &Activations<'_>, right: Quantised<'_>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if <f32 as super::Format>::has_panels(left.rows) {
        return super::tasks::add_product(left, right, out);
    }
    right.widened(|right| super::add_product(left, right, out));
}

/// `left · blocksᵀ`, where the widened matrix would take more memory than all else: some of its columns at a time.
fn in_pieces(left: &Activations<'_>, blocks: &Blocks) -> Vec<f32> {
    let [columns, depth] = blocks.dims();
    let together = (TOGETHER / depth).max(1);
    let mut out = vec![0.0; left.rows * columns];
    for first in (0..columns).step_by(together) {
        let here = together.min(columns - first);
        let part = blocks.narrow(first, here);
        let piece = product(left, Quantised::new(&part, true));
        for (out, piece) in out.chunks_exact_mut(columns).zip(piece.chunks_exact(here)) {
            out[first..first + here].copy_from_slice(piece);
        }
    }
    out
}

/// `left · blocksᵀ`. An entry depends on its row and column alone.
fn of_few_rows(left: &Activations<'_>, blocks: &Blocks) -> Vec<f32> {
    let ([columns, depth], rows) = (blocks.dims(), left.rows);
    if rows * depth * columns == 0 {
        return vec![0.0; rows * columns];
    }
    let (bytes, row) = (blocks.as_bytes(), blocks.row_bytes());
    let together = (TASK / depth).max(1);
    let turned = filled(columns * rows, together * rows, |place, out| {
        let bytes = &bytes[place.start / rows * row..place.end / rows * row];
        with_format!(blocks.format(), F => dots::<F>(left.numbers, depth, bytes, out));
    });
    match rows {
        1 => turned,
        _ => transposed(&turned, columns, rows),
    }
}

levels!(dots<F: Format>, all_dots, (x: &[f32], depth: usize, columns: &[u8], out: &mut [f32]));

/// `out [columns, rows]`: every row of `x` with every column.
#[inline(always)]
fn all_dots<F: Format, S: Simd>(x: &[f32], depth: usize, columns: &[u8], out: &mut [f32]) {
    let rows = x.len() / depth;
    let column = depth / (STRETCH * F::IN_BLOCK) * F::BYTES;
    for (column, out) in columns.chunks_exact(column).zip(out.chunks_exact_mut(rows)) {
        let (mut x, mut out) = (x, out);
        // As many rows side by side as leave their sums in registers.
        while !out.is_empty() {
            let together = match out.len() {
                1 => of_rows::<F, S, 1>(x, depth, column, out),
                2 | 3 => of_rows::<F, S, 2>(x, depth, column, out),
                _ => of_rows::<F, S, 4>(x, depth, column, out),
            };
            (x, out) = (&x[together * depth..], &mut out[together..]);
        }
    }
}

/// The first `M` rows of `x` with one column; returns `M`.
#[inline(always)]
fn of_rows<F: Format, S: Simd, const M: usize>(
    x: &[f32],
    depth: usize,
    column: &[u8],
    out: &mut [f32],
) -> usize {
    assert!(x.len() >= M * depth && column.len() / F::BYTES * F::IN_BLOCK * STRETCH == depth);
    // SAFETY: this is compiled for the vectors, and every row has a stretch of numbers for each of the column.
    unsafe {
        // As many vectors as a stretch has.
        let mut sums = [[S::splat(0.0); STRETCH / 8]; M];
        let mut from = x.as_ptr();
        for block in column.chunks_exact(F::BYTES) {
            ask_for(block.as_ptr().wrapping_add(AHEAD), F::BYTES);
            for stretch in 0..F::IN_BLOCK {
                let wide = F::read::<S>(block, stretch);
                for vector in 0..STRETCH / S::LANES {
                    let wide = wide.vector::<S>(vector * S::LANES);
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let x = S::load(from.add(row * depth + vector * S::LANES));
                        sums[vector] = S::multiply_add(x, wide, sums[vector]);
                    }
                }
                from = from.wrapping_add(STRETCH);
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            let mut lanes = [0.0; STRETCH];
            for vector in 0..STRETCH / S::LANES {
                S::store(lanes[vector * S::LANES..].as_mut_ptr(), sums[vector]);
            }
            *out = sum(&mut lanes);
        }
    }
    M
}

/// Asks for bytes, so that they are in the cache when they are read: the processor itself looks ahead within a page of memory alone.
#[inline(always)]
fn ask_for(from: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes);
}

/// Halves onto each other, so that the sum is the same whatever the vectors.
#[inline(always)]
fn sum(lanes: &mut [f32; STRETCH]) -> f32 {
    let mut width = STRETCH;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

#[cfg(target_arch = "x86_64")]
impl Right for Quantised<'_> {
    type Number = f32;

    fn dims(&self) -> [usize; 2] {
        Self::dims(self)
    }

    fn room(&self, deep: usize) -> Room {
        let numbers = match self.turned {
            true => COLUMNS * deep.next_multiple_of(STRETCH),
            false => deep * COLUMNS.next_multiple_of(STRETCH),
        };
        Room {
            panel: panel::room(deep),
            numbers: vec![0.0; numbers],
        }
    }

    unsafe fn lay_out(self, part: Part, room: &mut Room) {
        // The blocks' rows and columns that the part takes in whole stretches, and the part within them.
        let Part {
            start,
            deep,
            first,
            width,
        } = part;
        let (rows, columns) = match self.turned {
            true => (first..first + width, start..start + deep),
            false => (start..start + deep, first..first + width),
        };
        let stretches = columns.start / STRETCH..columns.end.div_ceil(STRETCH);
        let row = STRETCH * stretches.len();
        let numbers = &mut room.numbers[..rows.len() * row];
        let (bytes, row_bytes) = (self.blocks.as_bytes(), self.blocks.row_bytes());
        let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
        with_format!(self.blocks.format(), F => stretches_of_rows::<F>(bytes, row_bytes, stretches, numbers));
        let numbers = Stored::new(numbers, rows.len(), row);
        let offset = columns.start % STRETCH;
        let (numbers, part) = match self.turned {
            true => (
                numbers.transposed(),
                Part {
                    start: offset,
                    deep,
                    first: 0,
                    width,
                },
            ),
            false => (
                numbers,
                Part {
                    start: 0,
                    deep,
                    first: offset,
                    width,
                },
            ),
        };
        // SAFETY: the caller's promise, and the numbers are there.
        unsafe { panel::lay_out(numbers, part, &mut room.panel) }
    }

    /// Nothing: they are a fraction of the bytes that a panel of numbers reads.
    fn prefetch(self, _part: Part, _share: usize, _shares: usize) {}
}

#[cfg(target_arch = "x86_64")]
levels!(stretches_of_rows<F: Format>, all_stretches, (
    bytes: &[u8],
    row: usize,
    stretches: std::ops::Range<usize>,
    out: &mut [f32],
));

/// Some stretches of every row, `out [rows, stretches · 32]`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn all_stretches<F: Format, S: Simd>(
    bytes: &[u8],
    row: usize,
    stretches: std::ops::Range<usize>,
    out: &mut [f32],
) {
    let (out, _) = out.as_chunks_mut::<STRETCH>();
    for (row, out) in bytes
        .chunks_exact(row)
        .zip(out.chunks_exact_mut(stretches.len()))
    {
        for (stretch, out) in stretches.clone().zip(out) {
            let block = &row[stretch / F::IN_BLOCK * F::BYTES..][..F::BYTES];
            // SAFETY: this is compiled for the vectors.
            unsafe { F::read::<S>(block, stretch % F::IN_BLOCK).widen::<S>(out) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockFormat;
    use crate::blocks::tests::{blocks, numbers};

    fn both_ways(blocks: &Blocks) -> [Quantised<'_>; 2] {
        [true, false].map(|turned| Quantised::new(blocks, turned))
    }

    /// Rows of blocks, numbers of a row, rows of the left factor.
    const SHAPES: [[usize; 3]; 5] = [
        [1, 256, 9],
        [47, 512, 12],
        [100, 1024, 70],
        [801, 256, 20],
        [33, 768, 9],
    ];

    #[test]
    fn many_rows_give_what_the_widened_matrix_gives_to_the_last_bit() {
        for format in BlockFormat::ALL {
            for [rows, columns, left] in SHAPES {
                let blocks = blocks(format, [rows, columns], 1);
                for right in both_ways(&blocks) {
                    let [depth, out] = right.dims();
                    let x = numbers(left * depth, 2);
                    let x = Activations::new(&x, [left, depth]);
                    let want = right.widened(|wide| super::super::product(&x, wide));
                    assert_eq!(product(&x, right), want, "{format} {rows} {columns}");
                    let start = numbers(left * out, 3);
                    let (mut got, mut want) = (start.clone(), start);
                    add_product(&x, right, &mut got);
                    right.widened(|wide| super::super::add_product(&x, wide, &mut want));
                    assert_eq!(got, want, "{format} {rows} {columns}");
                }
            }
        }
    }

    #[test]
    fn a_few_rows_give_it_to_rounding_and_each_by_itself() {
        for format in BlockFormat::ALL {
            let blocks = blocks(format, [131, 512], 4);
            for right in both_ways(&blocks) {
                let [depth, out] = right.dims();
                for rows in 1..=MOST {
                    let x = numbers(rows * depth, 5);
                    let got = product(&Activations::new(&x, [rows, depth]), right);
                    let want = right.widened(|wide| {
                        super::super::product(&Activations::new(&x, [rows, depth]), wide)
                    });
                    let scale = want.iter().fold(0f32, |scale, it| scale.max(it.abs()));
                    for (got, want) in got.iter().zip(&want) {
                        assert!((got - want).abs() <= 1e-5 * scale, "{format} {got} {want}");
                    }
                    if right.turned {
                        let last = Activations::new(&x[(rows - 1) * depth..], [1, depth]);
                        assert_eq!(product(&last, right), got[(rows - 1) * out..]);
                    }
                }
            }
        }
    }

    #[test]
    fn pieces_are_the_whole() {
        let blocks = blocks(BlockFormat::Q4_1, [70_000, 256], 6);
        let x = numbers(9 * 256, 7);
        let x = Activations::new(&x, [9, 256]);
        let want = Quantised::new(&blocks, true).widened(|wide| super::super::product(&x, wide));
        assert_eq!(in_pieces(&x, &blocks), want);
    }

    #[test]
    fn an_empty_product_is_zero_or_nothing() {
        let none = Blocks::new(BlockFormat::Q8_0, Vec::new(), [0, 64]).unwrap();
        let x = Activations::new(&[], [2, 0]);
        assert_eq!(product(&x, Quantised::new(&none, false)), [0.0; 128]);
        let x = [1.0; 20 * 64];
        assert!(product(&Activations::new(&x, [20, 64]), Quantised::new(&none, true)).is_empty());
        let some = blocks(BlockFormat::Q8_0, [3, 64], 8);
        assert!(product(&Activations::new(&[], [0, 64]), Quantised::new(&some, true)).is_empty());
    }
}
