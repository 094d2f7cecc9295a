//! The product on AVX-512, cut into tasks of some columns and some rows: a task lays its columns out as a panel, small enough
//! for the cache, and multiplies all its rows with it. Meanwhile the next panel's numbers are asked for.

use super::ahead::Ahead;
use super::panel::{COLUMNS, Line, Part, in_lane};
use super::right::{Right, Room};
use super::tile::{ROWS, Sizes};
use super::{Activations, Format};
use crate::cpu::pieces::{Buffer, Pieces};
use crate::cpu::queue::for_each_task;

/// Lanes of the shared axis in a panel, which then takes 147 kB.
pub(super) const DEPTH: usize = 768;
/// Lanes in the rows of a task, 2 MB: few enough to stay near from panel to panel, and enough to pay for laying one out.
pub(super) const TASK_LANES: usize = 1 << 19;
/// Rows that pay for laying out a panel, however many threads there are.
pub(super) const LEAST_ROWS: usize = 64;
/// Fewer multiplications than this are not worth waking a thread for.
pub(super) const PARALLEL: usize = 1 << 16;

/// See [`super::product()`].
pub(super) fn product<R: Right>(left: &Activations<'_>, right: R) -> Vec<f32> {
    let [depth, columns] = right.dims();
    let count = left.rows * columns;
    if depth == 0 {
        return vec![0.0; count];
    }
    let mut out = Buffer::new(count);
    run(left, right, out.pieces(), false);
    // SAFETY: every entry belonged to one task, which stored it without reading what was there.
    unsafe { out.written() }
}

/// See [`super::add_product`].
pub(super) fn add_product<R: Right>(left: &Activations<'_>, right: R, out: &mut [f32]) {
    let [depth, columns] = right.dims();
    assert_eq!(out.len(), left.rows * columns, "a result of another size");
    if depth > 0 {
        run(left, right, Pieces::new(out), true);
    }
}

fn run<R: Right>(left: &Activations<'_>, right: R, out: Pieces<'_>, add: bool) {
    let [depth, columns] = right.dims();
    assert_eq!(left.depth, depth, "factors of different depth");
    let rows = left.rows;
    if rows == 0 || columns == 0 {
        return;
    }
    let parallel = rows * columns * depth >= PARALLEL;
    let threads = if parallel {
        rayon::current_num_threads()
    } else {
        1
    };
    let panels = columns.div_ceil(COLUMNS);
    let lanes = depth.div_ceil(in_lane::<R::Number>());
    // Enough tasks for all threads to be busy to the end.
    let tasks = 8 * threads;
    let task_rows = (TASK_LANES / lanes)
        .min(rows.div_ceil(tasks.div_ceil(panels)))
        .max(LEAST_ROWS)
        .next_multiple_of(ROWS);
    let product = Product {
        left: R::Number::lanes(left, parallel),
        lanes,
        rows,
        task_rows,
        threads,
        right,
        columns,
        out,
        add,
    };
    let task = |room: &mut Room, task: usize| {
        // SAFETY: the processor has panels, and no other task has these rows and columns.
        unsafe { product.task(task / panels, task % panels, room) }
    };
    let room = || right.room(lanes.min(DEPTH));
    let tasks = rows.div_ceil(task_rows) * panels;
    if parallel {
        for_each_task(tasks, room, task);
    } else {
        let mut room = room();
        (0..tasks).for_each(|index| task(&mut room, index));
    }
}

struct Product<'a, R> {
    /// `[rows, lanes]`.
    left: &'a [u32],
    lanes: usize,
    rows: usize,
    task_rows: usize,
    threads: usize,
    right: R,
    columns: usize,
    /// `[rows, columns]`.
    out: Pieces<'a>,
    add: bool,
}

impl<R: Right> Product<'_, R> {
    /// # Safety
    ///
    /// The processor has the instructions; nobody else uses these rows and columns of `out`, which hold numbers where `add`.
    unsafe fn task(&self, chunk: usize, column: usize, room: &mut Room) {
        let rows = chunk * self.task_rows..self.rows.min((chunk + 1) * self.task_rows);
        let tiles = rows.len().div_ceil(ROWS);
        let mut part = self.part(column, 0);
        while let Some(now) = part {
            // SAFETY: the instructions are there, and so is the part.
            unsafe { self.right.lay_out(now, room) };
            part = self.part(column, now.start + DEPTH);
            // The panels in between are for the other threads.
            let next = part.or_else(|| self.part(column + self.threads, 0));
            for (index, row) in rows.clone().step_by(ROWS).enumerate() {
                if let Some(next) = next {
                    self.right.prefetch(next, index, tiles);
                }
                // SAFETY: as the caller says.
                unsafe { self.tile(row, rows.end - row, now, &room.panel) }
            }
        }
    }

    /// The part of panel `column` from lane `start` on.
    fn part(&self, column: usize, start: usize) -> Option<Part> {
        let first = column * COLUMNS;
        (start < self.lanes && first < self.columns).then(|| Part {
            start,
            deep: (self.lanes - start).min(DEPTH),
            first,
            width: (self.columns - first).min(COLUMNS),
        })
    }

    /// # Safety
    ///
    /// As [`Self::task`].
    unsafe fn tile(&self, row: usize, rows: usize, part: Part, panel: &[Line]) {
        let columns = self.columns;
        let from = self.left[row * self.lanes + part.start..].as_ptr();
        let to = self.out.at(row * columns + part.first);
        let sizes = Sizes {
            left_row: self.lanes,
            deep: part.deep,
            out_row: columns,
            width: part.width,
        };
        let add = self.add || part.start > 0;
        let mut nothing = Ahead::NOTHING;
        // SAFETY: that many rows, and the part's columns, are there in both factors and in the result.
        unsafe { tile::<R::Number>(rows, from, panel, to, sizes, add, &mut nothing) }
    }
}

/// [`Format::tile`] of as many of `rows` rows as a tile takes.
///
/// # Safety
///
/// As [`Format::tile`].
pub(super) unsafe fn tile<T: Format>(
    rows: usize,
    left: *const u32,
    panel: &[Line],
    out: *mut f32,
    sizes: Sizes,
    add: bool,
    ahead: &mut Ahead,
) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match rows {
                $($rows => T::tile::<$rows>(left, panel, out, sizes, add, ahead),)*
                _ => T::tile::<ROWS>(left, panel, out, sizes, add, ahead),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe { by_rows!(1 2 3 4 5 6 7) }
}
