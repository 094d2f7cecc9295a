//! Products of rows that lie group by group with a matrix for each group, as the experts of a sparse mixture have them.
//!
//! One call may make several such products over the same groups, and go on with every block of the results while it is near.
//! Every entry is summed in an order of its own, whatever the number of threads.

#[cfg(target_arch = "x86_64")]
mod steps;
#[cfg(target_arch = "x86_64")]
mod tasks;

use std::ops::Range;

use super::{Activations, Format, Stored, few_rows, matrix};
use crate::cpu::pieces::Pieces;
use crate::cpu::product::multiply;
use crate::cpu::queue::for_each_task;

/// Most columns of a block.
pub(crate) const COLUMNS: usize = 48;
/// Most rows of a block.
const ROWS: usize = 8;

/// A result `[rows, columns]`: in each group the sum, over the factors, of the group's rows of a left factor times its matrix.
pub(crate) struct Sum<'a, T> {
    /// A left factor `[rows, depth]`, and a matrix `[depth, columns]` for each group.
    pub(crate) factors: Vec<(&'a Activations<'a>, Vec<Stored<'a, T>>)>,
    /// Nothing is read from it before it is written.
    pub(crate) out: Pieces<'a>,
}

/// A part of the results, at most [`COLUMNS`] wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

/// Makes the `sums` on all threads, and calls `then` for every block once it is there in all of them; group g has the rows
/// `bounds[g]..bounds[g + 1]`. Blocks do not overlap, and are all there is.
///
/// # Panics
///
/// When the factors do not fit together.
pub(crate) fn products<T: Format>(
    bounds: &[usize],
    columns: usize,
    sums: &[Sum<'_, T>],
    then: impl Fn(Block) + Sync,
) {
    let groups = bounds.len() - 1;
    for (left, rights) in sums.iter().flat_map(|sum| &sum.factors) {
        assert_eq!(left.rows, bounds[groups], "rows of other groups");
        assert_eq!(rights.len(), groups, "matrices of other groups");
        for right in rights {
            assert!(left.depth > 0, "factors of no depth");
            assert_eq!(left.depth, right.rows, "factors of different depth");
            assert_eq!(right.columns, columns, "results of different widths");
        }
    }
    #[cfg(target_arch = "x86_64")]
    let has_panels = T::has_panels(ROWS);
    #[cfg(not(target_arch = "x86_64"))]
    let has_panels = false;

    let mut many = Vec::new();
    for group in 0..groups {
        let rows = bounds[group]..bounds[group + 1];
        let few = rows.len() <= few_rows::MOST;
        if rows.is_empty() {
            continue;
        }
        if has_panels && !few {
            many.push((group, rows));
            continue;
        }
        for sum in sums {
            one(sum, group, rows.clone(), columns, few);
        }
        let high = rows.len().div_ceil(ROWS);
        for_each_task(
            high * columns.div_ceil(COLUMNS),
            || (),
            |(), task| {
                let (row, column) = (rows.start + task % high * ROWS, task / high * COLUMNS);
                then(Block {
                    rows: row..rows.end.min(row + ROWS),
                    columns: column..columns.min(column + COLUMNS),
                });
            },
        );
    }
    #[cfg(target_arch = "x86_64")]
    if !many.is_empty() && columns > 0 {
        tasks::products(&many, columns, sums, then);
    }
}

/// One group of one sum, without panels.
fn one<T: Format>(sum: &Sum<'_, T>, group: usize, rows: Range<usize>, columns: usize, few: bool) {
    for (index, (left, rights)) in sum.factors.iter().enumerate() {
        let own = rows.start * left.depth..rows.end * left.depth;
        let left = Activations::new(&left.numbers[own], [rows.len(), left.depth]);
        let (right, add) = (rights[group], index > 0);
        let place = rows.start * columns;
        if few {
            let numbers = few_rows::product(&left, right);
            // SAFETY: these rows are nobody else's; they are cleared before they are added to.
            let out = unsafe {
                match add {
                    true => sum.out.piece(place, numbers.len()),
                    false => sum.out.zeroed(place, numbers.len()),
                }
            };
            out.iter_mut().zip(&numbers).for_each(|(out, x)| *out += x);
        } else if columns > 0 {
            let wide = T::widened(right.data);
            // SAFETY: the rows are there, nobody else's, and have been written where they are added to.
            unsafe { multiply(left.matrix(), matrix(&wide, right), sum.out.at(place), add) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use burn::tensor::bf16;

    use super::*;

    /// Rows of ones with matrices of ones, of which each result is the depth.
    fn assert_blocks<T: Format>(one: T, bounds: &[usize], columns: usize, depth: usize) {
        let (rows, groups) = (bounds[bounds.len() - 1], bounds.len() - 1);
        let (left, right) = (vec![1.0; rows * depth], vec![one; depth * columns]);
        let left = Activations::new(&left, [rows, depth]);
        let right = Stored::new(&right, depth, columns);
        let mut out = vec![0.0; rows * columns];
        let seen = Mutex::new(vec![0; rows * columns]);
        let pieces = Pieces::new(&mut out);
        let sum = Sum {
            factors: vec![(&left, vec![right; groups]), (&left, vec![right; groups])],
            out: pieces,
        };
        products(bounds, columns, &[sum], |block| {
            assert!(block.columns.len() <= COLUMNS);
            let mut seen = seen.lock().unwrap();
            for row in block.rows {
                for column in block.columns.clone() {
                    let place = row * columns + column;
                    seen[place] += 1;
                    // SAFETY: a place of this block, read before the next call.
                    assert_eq!(unsafe { pieces.piece(place, 1) }[0], 2.0 * depth as f32);
                }
            }
        });
        assert_eq!(seen.into_inner().unwrap(), vec![1; rows * columns]);
    }

    #[test]
    fn every_block_is_there_once_and_complete() {
        for bounds in [&[0, 0, 30, 30, 39, 40][..], &[0, 200, 300], &[0, 0]] {
            for (columns, depth) in [(5, 3), (48, 16), (100, 900)] {
                assert_blocks(1f32, bounds, columns, depth);
                assert_blocks(bf16::ONE, bounds, columns, depth);
            }
        }
    }
}
