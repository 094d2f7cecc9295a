//! The product on AVX-512 BF16, cut into tasks of some columns and some rows: a task lays its columns out as a panel, small enough
//! for the cache, and multiplies all its rows with it. Meanwhile the next panel's numbers are asked for.

use rayon::prelude::*;

use super::panel::{COLUMNS, Line, Part, lay_out, prefetch, room};
use super::round::rounded;
use super::tile::{ROWS, tile};
use super::{Activations, Bf16Matrix};
use crate::cpu::pieces::{Buffer, Pieces};

/// Pairs of the shared axis in a panel, which then takes 147 kB.
const DEPTH: usize = 768;
/// Pairs in the rows of a task, which stay in the cache from panel to panel: 1 MB.
const TASK_PAIRS: usize = 1 << 18;
/// Fewer multiplications than this are not worth waking a thread for.
const PARALLEL: usize = 1 << 16;

/// See [`super::product()`].
pub(super) fn product(left: &Activations<'_>, right: Bf16Matrix<'_>) -> Vec<f32> {
    let count = left.rows * right.columns;
    if right.rows == 0 {
        return vec![0.0; count];
    }
    let mut out = Buffer::new(count);
    run(left, right, out.pieces(), false);
    // SAFETY: every entry belonged to one task, which stored it without reading what was there.
    unsafe { out.written() }
}

/// See [`super::add_product`].
pub(super) fn add_product(left: &Activations<'_>, right: Bf16Matrix<'_>, out: &mut [f32]) {
    assert_eq!(
        out.len(),
        left.rows * right.columns,
        "a result of another size"
    );
    if right.rows > 0 {
        run(left, right, Pieces::new(out), true);
    }
}

fn run(left: &Activations<'_>, right: Bf16Matrix<'_>, out: Pieces<'_>, add: bool) {
    assert_eq!(left.depth, right.rows, "factors of different depth");
    let rows = left.rows;
    if rows == 0 || right.columns == 0 {
        return;
    }
    let parallel = rows * right.columns * right.rows >= PARALLEL;
    let panels = right.columns.div_ceil(COLUMNS);
    let pairs = right.rows.div_ceil(2);
    // Enough tasks for all threads to be busy to the end.
    let tasks = 4 * rayon::current_num_threads();
    let task_rows = (TASK_PAIRS / pairs)
        .min(rows.div_ceil(tasks.div_ceil(panels)))
        .next_multiple_of(ROWS);
    let product = Product {
        left: left
            .rounded
            .get_or_init(|| rounded(left.numbers, left.depth, parallel)),
        rows,
        task_rows,
        right,
        out,
        add,
    };
    let task = |panel: &mut Vec<Line>, task: usize| {
        // SAFETY: `rounded` made sure of the instructions, and no other task has these rows and columns.
        unsafe { product.task(task / panels, task % panels, panel) }
    };
    let panel = || room(pairs.min(DEPTH));
    let tasks = 0..rows.div_ceil(task_rows) * panels;
    if parallel {
        // A few rows alone take so little time that panels are handed out together.
        let together = (PARALLEL / (rows * COLUMNS * right.rows)).max(1);
        let tasks = tasks.into_par_iter().with_min_len(together);
        tasks.for_each_init(panel, task);
    } else {
        let mut panel = panel();
        tasks.for_each(|index| task(&mut panel, index));
    }
}

struct Product<'a> {
    /// Pairs, `[rows, ⌈right.rows / 2⌉]`.
    left: &'a [u32],
    rows: usize,
    task_rows: usize,
    right: Bf16Matrix<'a>,
    /// `[rows, right.columns]`.
    out: Pieces<'a>,
    add: bool,
}

impl Product<'_> {
    /// # Safety
    ///
    /// The processor has the instructions; nobody else uses these rows and columns of `out`, which hold numbers where `add`.
    unsafe fn task(&self, chunk: usize, column: usize, panel: &mut [Line]) {
        let rows = chunk * self.task_rows..self.rows.min((chunk + 1) * self.task_rows);
        let tiles = rows.len().div_ceil(ROWS);
        let mut part = self.part(column, 0);
        while let Some(now) = part {
            // SAFETY: the instructions are there, and so is the part.
            unsafe { lay_out(self.right, now, panel) };
            part = self.part(column, now.start + DEPTH);
            let next = part.or_else(|| self.part(column + 1, 0));
            for (index, row) in rows.clone().step_by(ROWS).enumerate() {
                if let Some(next) = next {
                    prefetch(self.right, next, index, tiles);
                }
                // SAFETY: as the caller says.
                unsafe { self.tile(row, rows.end - row, now, panel) }
            }
        }
    }

    /// The part of panel `column` from pair `start` on.
    fn part(&self, column: usize, start: usize) -> Option<Part> {
        let (pairs, first) = (self.right.rows.div_ceil(2), column * COLUMNS);
        (start < pairs && first < self.right.columns).then(|| Part {
            start,
            deep: (pairs - start).min(DEPTH),
            first,
            width: (self.right.columns - first).min(COLUMNS),
        })
    }

    /// # Safety
    ///
    /// As [`Self::task`].
    unsafe fn tile(&self, row: usize, rows: usize, part: Part, panel: &[Line]) {
        let (pairs, columns) = (self.right.rows.div_ceil(2), self.right.columns);
        let from = self.left[row * pairs + part.start..].as_ptr();
        let to = self.out.at(row * columns + part.first);
        let steps = [pairs, part.deep, columns, part.width];
        let add = self.add || part.start > 0;
        macro_rules! by_rows {
            ($($rows:literal)*) => {
                match rows {
                    $($rows => tile::<$rows>(from, panel, to, steps, add),)*
                    _ => tile::<ROWS>(from, panel, to, steps, add),
                }
            };
        }
        // SAFETY: that many rows, and the part's columns, are there in both factors and in the result.
        unsafe { by_rows!(1 2 3 4 5 6 7) }
    }
}
