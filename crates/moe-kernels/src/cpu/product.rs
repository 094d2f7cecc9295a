//! Matrix products: a large one on all threads by the `gemm` crate, and a small one within a task by our own tiles.

use gemm::Parallelism;

use super::tile::{COLUMNS, Left, Out, Product, ROWS, Right, Start, tile};

/// Fewer multiplications than this are not worth waking a thread for.
const PARALLEL: usize = 1 << 16;

/// A matrix in memory: entry (i, j) at `data[i · row + j · column]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other, `data [rows, columns]`.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `row` entries apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, columns: usize, row: usize) -> Self {
        let matrix = Self {
            data,
            rows,
            columns,
            row,
            column: 1,
        };
        matrix.check();
        matrix
    }

    fn check(&self) {
        if self.rows > 0 && self.columns > 0 {
            let last = (self.rows - 1) * self.row + (self.columns - 1) * self.column;
            assert!(last < self.data.len(), "a matrix larger than its data");
        }
    }

    /// The transposed matrix, in place.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row: self.column,
            column: self.row,
            ..self
        }
    }

    fn at(&self, row: usize, column: usize) -> *const f32 {
        self.data
            .as_ptr()
            .wrapping_add(row * self.row + column * self.column)
    }
}

/// `left · right [rows, columns]`, on all threads.
pub(crate) fn product(left: Matrix<'_>, right: Matrix<'_>) -> Vec<f32> {
    let count = left.rows * right.columns;
    if left.columns == 0 {
        return vec![0.0; count];
    }
    // Not filled before it is written: for a large result that would take a tenth of the product's time.
    let mut out = Vec::with_capacity(count);
    // SAFETY: there is room for the result, and without `add` it is written before it is read.
    unsafe {
        multiply(left, right, out.as_mut_ptr(), false);
        out.set_len(count);
    }
    out
}

/// `out [rows, columns] += left · right`, on all threads.
pub(crate) fn add_product(left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32]) {
    assert_eq!(
        out.len(),
        left.rows * right.columns,
        "a result of another size"
    );
    // SAFETY: `out` is as large as the result.
    unsafe { multiply(left, right, out.as_mut_ptr(), true) }
}

/// # Safety
///
/// `out` has room for `[left.rows, right.columns]`, and holds numbers where they are added to.
pub(crate) unsafe fn multiply(left: Matrix<'_>, right: Matrix<'_>, out: *mut f32, add: bool) {
    assert_eq!(left.columns, right.rows, "factors of different depth");
    let (rows, columns, depth) = (left.rows, right.columns, left.columns);
    if rows * columns * depth == 0 {
        return;
    }
    let parallelism = match rows * columns * depth < PARALLEL {
        true => Parallelism::None,
        false => Parallelism::Rayon(0),
    };
    // SAFETY: both factors lie within their data (checked when they were made); the caller says as much of the result, which is
    // borrowed mutably or not yet anybody's, so that it overlaps neither.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            out,
            1,
            columns as isize,
            add,
            left.data.as_ptr(),
            left.column as isize,
            left.row as isize,
            right.data.as_ptr(),
            right.column as isize,
            right.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `out = start + left · right` within one task, nothing packed; rows of `out` begin `out_row` apart.
/// `start` has the shape of `out`; without one the product is added to what is in `out` when `add`.
pub(crate) fn small_product(
    left: Matrix<'_>,
    right: Matrix<'_>,
    start: Option<Matrix<'_>>,
    out: &mut [f32],
    out_row: usize,
    add: bool,
) {
    assert_eq!(left.columns, right.rows, "factors of different depth");
    assert_eq!(right.column, 1, "the right factor has rows");
    let (rows, columns, depth) = (left.rows, right.columns, left.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(
        (rows - 1) * out_row + columns <= out.len(),
        "a result of another size"
    );
    if let Some(start) = &start {
        assert!(start.rows == rows && start.columns == columns && start.column == 1);
    }
    let out = out.as_mut_ptr();
    for row in (0..rows).step_by(ROWS) {
        for column in (0..columns).step_by(COLUMNS) {
            let to = out.wrapping_add(row * out_row + column);
            let start = match &start {
                Some(start) => Start {
                    data: start.at(row, column),
                    row: start.row,
                },
                None if add => Start {
                    data: to,
                    row: out_row,
                },
                None => Start::ZERO,
            };
            // SAFETY: every entry was checked to be there, and `out` is borrowed mutably, so it overlaps nothing.
            unsafe {
                tile(
                    [(rows - row).min(ROWS), (columns - column).min(COLUMNS)],
                    Product {
                        depth,
                        left: Left {
                            data: left.at(row, 0),
                            row: left.row,
                            step: left.column,
                        },
                        right: Right {
                            data: right.at(0, column),
                            step: right.row,
                        },
                        start,
                        out: Out {
                            data: to,
                            row: out_row,
                        },
                    },
                );
            }
        }
    }
}

/// `data [rows, columns]` transposed, for a small matrix.
pub(crate) fn transposed(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * columns);
    for column in 0..columns {
        out.extend((0..rows).map(|row| data[row * columns + column]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn obvious(a: &Matrix<'_>, b: &Matrix<'_>) -> Vec<f32> {
        let entry = |m: &Matrix<'_>, i, j| f64::from(m.data[i * m.row + j * m.column]);
        let mut out = Vec::new();
        for i in 0..a.rows {
            for j in 0..b.columns {
                let sum: f64 = (0..a.columns)
                    .map(|k| entry(a, i, k) * entry(b, k, j))
                    .sum();
                out.push(sum as f32);
            }
        }
        out
    }

    fn assert_close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!(
                (got - want).abs() <= 1e-4 * (1.0 + want.abs()),
                "{got} {want}"
            );
        }
    }

    #[test]
    fn products_are_those_of_the_obvious_loop() {
        for (m, k, n) in [
            (1, 1, 1),
            (3, 5, 7),
            (13, 33, 31),
            (25, 321, 65),
            (800, 40, 33),
            (12, 700, 16),
        ] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let plain = [Matrix::new(&a, m, k), Matrix::new(&b, k, n)];
            let turned = [
                Matrix::new(&a, k, m).transposed(),
                Matrix::new(&b, n, k).transposed(),
            ];
            for left in [plain[0], turned[0]] {
                for right in [plain[1], turned[1]] {
                    let want = obvious(&left, &right);
                    let mut out = product(left, right);
                    assert_close(&out, &want);
                    add_product(left, right, &mut out);
                    let twice: Vec<f32> = want.iter().map(|x| 2.0 * x).collect();
                    assert_close(&out, &twice);
                }
                // A small one has a right factor with rows.
                let want = obvious(&left, &plain[1]);
                let twice: Vec<f32> = want.iter().map(|x| 2.0 * x).collect();
                let start = Some(Matrix::new(&want, m, n));
                let mut out = vec![0.0; m * n];
                small_product(left, plain[1], start, &mut out, n, false);
                assert_close(&out, &twice);
            }
        }
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let mut out = product(Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 3));
        add_product(Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 3), &mut out);
        assert_eq!(out, [0.0; 6]);
    }
}
