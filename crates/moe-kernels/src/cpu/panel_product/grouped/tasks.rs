//! Grouped products on AVX-512, cut into tasks of some rows of one group and the columns of a panel. All panels that a task meets are laid
//! out, as many as the cache holds, and its rows taken through them a tile at a time; what follows the products finds a tile's results
//! in the nearest cache.
//!
//! A group may have few rows, and its matrix come from memory for them. So a thread takes its next task ahead, and between two tiles it
//! asks for a share of that task's panels and lays out the share that it has asked for before.

use std::cell::Cell;
use std::ops::Range;

use super::steps::{Step, chunks, rounds};
use super::{Block, Sum};
use crate::cpu::panel_product::ahead::Ahead;
use crate::cpu::panel_product::panel::{COLUMNS, Line, Part, VECTORS, in_lane, lay_out, room};
use crate::cpu::panel_product::tasks::{DEPTH, LEAST_ROWS, PARALLEL, TASK_LANES, tile};
use crate::cpu::panel_product::tile::{LANES, ROWS, Sizes};
use crate::cpu::panel_product::{Format, Stored};
use crate::cpu::pieces::Pieces;
use crate::cpu::queue::on_all_threads;

const _: () = assert!(COLUMNS == super::COLUMNS);

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

struct Products<'s, T> {
    factors: Vec<Factor<'s, T>>,
    rounds: Vec<Vec<Step>>,
    /// A group and some of its rows.
    chunks: Vec<(usize, Range<usize>)>,
    columns: usize,
    panels: usize,
    /// Lanes in a panel.
    room: usize,
}

/// A round of a task.
#[derive(Clone, Copy)]
struct Place {
    task: usize,
    round: usize,
}

/// See [`super::products`], for groups that have rows, where the processor has panels.
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
        room: deepest.min(DEPTH),
    };
    let tasks = products.chunks.len() * panels;
    if parallel {
        on_all_threads(tasks, |take| products.work(take, &then));
    } else {
        let tasks = Cell::new(0..tasks);
        let take = || {
            let mut left = tasks.take();
            let next = left.next();
            tasks.set(left);
            next
        };
        products.work(&take, &then);
    }
}

impl<T: Format> Products<'_, T> {
    /// Takes tasks as long as there are any. No two of a call's tasks have an entry of the results in common.
    fn work(&self, take: &dyn Fn() -> Option<usize>, then: &(impl Fn(Block) + Sync)) {
        let Some(task) = take() else { return };
        let most = self.rounds.iter().map(Vec::len).max().unwrap_or(0);
        let mut rooms = [(); 2].map(|()| {
            (0..most)
                .map(|_| room(self.room))
                .collect::<Vec<Vec<Line>>>()
        });
        let mut place = Place { task, round: 0 };
        self.lay_out(place, &mut rooms[0], 0, 1);
        loop {
            let next = match place.round + 1 < self.rounds.len() {
                true => Some(Place {
                    round: place.round + 1,
                    ..place
                }),
                false => take().map(|task| Place { task, round: 0 }),
            };
            let [now, ahead] = &mut rooms;
            self.round(place, now, next.map(|next| (next, ahead)), then);
            let Some(next) = next else { break };
            rooms.swap(0, 1);
            place = next;
        }
    }

    /// A round with the panels in `room`, while those of the next one are laid out.
    fn round(
        &self,
        place: Place,
        room: &[Vec<Line>],
        mut next: Option<(Place, &mut Vec<Vec<Line>>)>,
        then: &(impl Fn(Block) + Sync),
    ) {
        let (_, rows) = self.chunks[place.task / self.panels].clone();
        let column = place.task % self.panels;
        let (tiles, steps) = (rows.len().div_ceil(ROWS), &self.rounds[place.round]);
        let last = place.round + 1 == self.rounds.len();
        for (index, row) in rows.clone().step_by(ROWS).enumerate() {
            if index > 0
                && let Some((next, ahead)) = &mut next
            {
                self.lay_out(*next, ahead, index - 1, tiles);
            }
            let mut ahead = next
                .iter()
                .flat_map(|(next, _)| self.ahead(*next, index, tiles));
            for (step, panel) in steps.iter().zip(room) {
                let mut ahead = ahead.next().unwrap_or(Ahead::NOTHING);
                // SAFETY: the processor has panels, and no other task has these rows and columns.
                unsafe {
                    self.tile(
                        row,
                        rows.end - row,
                        step,
                        self.part(step, column),
                        panel,
                        &mut ahead,
                    )
                }
            }
            if last {
                let first = column * COLUMNS;
                then(Block {
                    rows: row..rows.end.min(row + ROWS),
                    columns: first..self.columns.min(first + COLUMNS),
                });
            }
        }
        if let Some((next, ahead)) = next {
            self.lay_out(next, ahead, tiles - 1, tiles);
        }
    }

    /// Lays out one of `shares` shares of the panels of a round.
    fn lay_out(&self, place: Place, room: &mut [Vec<Line>], share: usize, shares: usize) {
        for ((part, right), panel) in self.parts(place, share, shares).zip(room) {
            if let Some((part, from)) = part {
                // SAFETY: the processor has panels, and the matrix the part.
                unsafe { lay_out(right, part, &mut panel[VECTORS * from..]) };
            }
        }
    }

    /// The lines of one of `shares` shares of each step of a round.
    fn ahead(&self, place: Place, share: usize, shares: usize) -> impl Iterator<Item = Ahead> {
        let parts = self.parts(place, share, shares);
        parts.map(|(part, right)| match part {
            Some((part, _)) => Ahead::of(right, part),
            None => Ahead::NOTHING,
        })
    }

    /// Of each step of a round, one of `shares` shares of its part, with its first lane in the panel, and the matrix.
    fn parts(
        &self,
        Place { task, round }: Place,
        share: usize,
        shares: usize,
    ) -> impl Iterator<Item = (Option<(Part, usize)>, Stored<'_, T>)> {
        let (group, _) = self.chunks[task / self.panels];
        self.rounds[round].iter().map(move |step| {
            let part = self.part(step, task % self.panels);
            // The transposing copy takes so many lanes at a time.
            let units = part.deep.div_ceil(LANES);
            let from = LANES * (share * units / shares);
            let to = part.deep.min(LANES * ((share + 1) * units / shares));
            let share = (from < to).then(|| Part {
                start: part.start + from,
                deep: to - from,
                ..part
            });
            (share.map(|part| (part, from)), self.right(step, group))
        })
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
    /// The processor has the instructions; nobody else uses these rows and columns of the results.
    unsafe fn tile(
        &self,
        row: usize,
        rows: usize,
        step: &Step,
        part: Part,
        panel: &[Line],
        ahead: &mut Ahead,
    ) {
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
        unsafe { tile::<T>(rows, from, panel, to, sizes, add, ahead) }
    }
}
