//! Grouped products on AVX-512, cut into tasks of some rows of one group and the columns of a panel. A task lays out all panels that it
//! meets, as many as the cache holds, and takes its rows through them a tile at a time; what follows the products finds a tile's
//! results in the nearest cache. Meanwhile the next panels' numbers are asked for.

use std::ops::Range;

use super::grouped::{Block, Sum};
use super::panel::{COLUMNS, Line, Part, in_lane, lay_out, prefetch, room};
use super::tasks::{DEPTH, LEAST_ROWS, PARALLEL, TASK_LANES, tile};
use super::tile::{ROWS, Sizes};
use super::{Format, Stored};
use crate::cpu::pieces::Pieces;
use crate::cpu::queue::for_each_task;

const _: () = assert!(COLUMNS == super::grouped::COLUMNS);

/// Most lanes of the panels that are laid out at a time: 295 kB.
const ROUND: usize = 2 * DEPTH;

/// A left factor and its matrices.
struct Factor<'s, T> {
    /// `[rows, lanes]`.
    left: &'s [u32],
    lanes: usize,
    rights: &'s [Stored<'s, T>],
    out: Pieces<'s>,
    /// There is something in `out` already.
    add: bool,
}

/// Lanes `start..start + deep` of a factor.
#[derive(Clone, Copy)]
struct Step {
    factor: usize,
    start: usize,
    deep: usize,
}

struct Products<'s, T> {
    factors: Vec<Factor<'s, T>>,
    rounds: Vec<Vec<Step>>,
    /// A group and some of its rows.
    chunks: Vec<(usize, Range<usize>)>,
    columns: usize,
    panels: usize,
    threads: usize,
}

/// See [`super::grouped::products`], for groups that have rows, where the processor has panels.
pub(super) fn products<T: Format>(
    groups: &[(usize, Range<usize>)],
    columns: usize,
    sums: &[Sum<'_, T>],
    then: impl Fn(Block) + Sync,
) {
    let depths = sums.iter().flat_map(|sum| &sum.factors);
    let lanes: Vec<usize> = depths
        .map(|(left, _)| left.depth.div_ceil(in_lane::<T>()))
        .collect();
    let (deepest, depth) = (
        lanes.iter().copied().max().unwrap_or(1),
        lanes.iter().sum::<usize>(),
    );
    let rows: usize = groups.iter().map(|(_, rows)| rows.len()).sum();
    let parallel = rows * columns * depth >= PARALLEL;
    let threads = if parallel {
        rayon::current_num_threads()
    } else {
        1
    };
    let panels = columns.div_ceil(COLUMNS);
    // Enough tasks for all threads to be busy to the end.
    let most = (TASK_LANES / deepest)
        .min(rows.div_ceil((8 * threads).div_ceil(panels)))
        .max(LEAST_ROWS);
    let mut factors = Vec::new();
    for sum in sums {
        for (index, (left, rights)) in sum.factors.iter().enumerate() {
            factors.push(Factor {
                left: T::lanes(left, parallel),
                lanes: lanes[factors.len()],
                rights,
                out: sum.out,
                add: index > 0,
            });
        }
    }
    let products = Products {
        factors,
        rounds: rounds(&lanes),
        chunks: groups
            .iter()
            .flat_map(|(group, rows)| chunks(*group, rows, most))
            .collect(),
        columns,
        panels,
        threads,
    };
    let room = || {
        let most = products.rounds.iter().map(Vec::len).max().unwrap_or(0);
        (0..most).map(|_| room(deepest.min(DEPTH))).collect()
    };
    let task = |room: &mut Vec<Vec<Line>>, task: usize| {
        // SAFETY: the processor has panels, and no other task has these rows and columns.
        unsafe { products.task(task, room, &then) }
    };
    let tasks = products.chunks.len() * panels;
    if parallel {
        for_each_task(tasks, room, task);
    } else {
        let mut room = room();
        (0..tasks).for_each(|index| task(&mut room, index));
    }
}

/// All steps through factors of so many lanes, as many together as [`ROUND`] allows.
fn rounds(lanes: &[usize]) -> Vec<Vec<Step>> {
    let mut rounds: Vec<Vec<Step>> = vec![Vec::new()];
    let mut taken = 0;
    for (factor, &lanes) in lanes.iter().enumerate() {
        for start in (0..lanes).step_by(DEPTH) {
            let deep = (lanes - start).min(DEPTH);
            if taken + deep > ROUND {
                rounds.push(Vec::new());
                taken = 0;
            }
            taken += deep;
            let step = Step {
                factor,
                start,
                deep,
            };
            rounds.last_mut().expect("a round").push(step);
        }
    }
    rounds
}

/// A group's rows in chunks of about one size, at most `most`.
fn chunks(
    group: usize,
    rows: &Range<usize>,
    most: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
    let Range { start, end } = *rows;
    let size = rows
        .len()
        .div_ceil(rows.len().div_ceil(most))
        .next_multiple_of(ROWS);
    (start..end)
        .step_by(size)
        .map(move |first| (group, first..end.min(first + size)))
}

impl<T: Format> Products<'_, T> {
    /// # Safety
    ///
    /// The processor has the instructions; nobody else uses the task's rows and columns of the results.
    unsafe fn task(&self, task: usize, room: &mut [Vec<Line>], then: &(impl Fn(Block) + Sync)) {
        let (group, rows) = self.chunks[task / self.panels].clone();
        let column = task % self.panels;
        let tiles = rows.len().div_ceil(ROWS);
        for (index, round) in self.rounds.iter().enumerate() {
            for (step, panel) in round.iter().zip(room.iter_mut()) {
                // SAFETY: the instructions are there, and so is the part.
                unsafe { lay_out(self.right(step, group), self.part(step, column), panel) };
            }
            let last = index + 1 == self.rounds.len();
            let next = self.next(task, index);
            for (index, row) in rows.clone().step_by(ROWS).enumerate() {
                if let Some((round, group, column)) = next {
                    for step in round {
                        let part = self.part(step, column);
                        prefetch(self.right(step, group), part, index, tiles);
                    }
                }
                for (step, panel) in round.iter().zip(room.iter()) {
                    // SAFETY: as the caller says.
                    unsafe { self.tile(row, rows.end - row, step, self.part(step, column), panel) }
                }
                if last {
                    let first = column * COLUMNS;
                    then(Block {
                        rows: row..rows.end.min(row + ROWS),
                        columns: first..self.columns.min(first + COLUMNS),
                    });
                }
            }
        }
    }

    /// What is laid out after round `index` of `task`: steps, group and panel. The tasks in between are for the other threads.
    fn next(&self, task: usize, index: usize) -> Option<(&[Step], usize, usize)> {
        let (task, round) = match self.rounds.get(index + 1) {
            Some(round) => (task, round),
            None => (task + self.threads, &self.rounds[0]),
        };
        let (group, _) = self.chunks.get(task / self.panels)?;
        Some((round, *group, task % self.panels))
    }

    fn right(&self, step: &Step, group: usize) -> Stored<'_, T> {
        self.factors[step.factor].rights[group]
    }

    fn part(&self, step: &Step, column: usize) -> Part {
        let first = column * COLUMNS;
        Part {
            start: step.start,
            deep: step.deep,
            first,
            width: (self.columns - first).min(COLUMNS),
        }
    }

    /// # Safety
    ///
    /// As [`Self::task`].
    unsafe fn tile(&self, row: usize, rows: usize, step: &Step, part: Part, panel: &[Line]) {
        let factor = &self.factors[step.factor];
        let lanes = factor.lanes;
        let from = factor.left[row * lanes + part.start..].as_ptr();
        let to = factor.out.at(row * self.columns + part.first);
        let sizes = Sizes {
            left_row: lanes,
            deep: part.deep,
            out_row: self.columns,
            width: part.width,
        };
        let add = factor.add || part.start > 0;
        // SAFETY: that many rows, and the part's columns, are there in both factors and in the result.
        unsafe { tile::<T>(rows, from, panel, to, sizes, add) }
    }
}
