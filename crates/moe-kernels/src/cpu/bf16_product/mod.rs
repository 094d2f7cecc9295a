//! Products of 32-bit activations with a bf16 matrix.
//!
//! Where the processor multiplies pairs of bf16 numbers (AVX-512 BF16) the activations are rounded to bf16 too, and summed in 32
//! bits; elsewhere the matrix is widened and goes through the product of 32-bit numbers. Every entry is one sum in the order of the
//! shared axis, whatever the number of rows or threads.

#[cfg(target_arch = "x86_64")]
mod panel;
#[cfg(target_arch = "x86_64")]
mod round;
#[cfg(target_arch = "x86_64")]
mod tasks;
#[cfg(target_arch = "x86_64")]
mod tile;

use burn::tensor::bf16;
use rayon::prelude::*;

use super::product::{self, Matrix};

/// A bf16 matrix in memory: `data [rows, columns]`, or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Matrix<'a> {
    data: &'a [bf16],
    rows: usize,
    columns: usize,
    /// Columns lie one after the other, not rows.
    turned: bool,
}

impl<'a> Bf16Matrix<'a> {
    /// Rows one after the other.
    pub(crate) fn new(data: &'a [bf16], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of another size");
        Self {
            data,
            rows,
            columns,
            turned: false,
        }
    }

    /// The transposed matrix, in place.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            turned: !self.turned,
            ..self
        }
    }
}

/// Whether the processor multiplies pairs of bf16 numbers.
#[cfg(target_arch = "x86_64")]
fn is_supported() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
}

/// A left factor `[rows, depth]`, rounded once for all the bf16 matrices that it meets.
pub(crate) struct Activations<'a> {
    numbers: &'a [f32],
    rows: usize,
    depth: usize,
    /// Pairs of bf16 numbers, once they have been asked for.
    #[cfg(target_arch = "x86_64")]
    rounded: std::cell::OnceCell<Vec<u32>>,
}

impl<'a> Activations<'a> {
    pub(crate) fn new(numbers: &'a [f32], rows: usize) -> Self {
        let depth = numbers.len() / rows.max(1);
        assert_eq!(numbers.len(), rows * depth, "rows of different lengths");
        Self {
            numbers,
            rows,
            depth,
            #[cfg(target_arch = "x86_64")]
            rounded: std::cell::OnceCell::new(),
        }
    }

    pub(crate) fn matrix(&self) -> Matrix<'a> {
        Matrix::new(self.numbers, self.rows, self.depth)
    }
}

/// `left · right [rows, columns]`, on all threads.
pub(crate) fn product(left: &Activations<'_>, right: Bf16Matrix<'_>) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if is_supported() {
        return tasks::product(left, right);
    }
    let wide = widened(right);
    product::product(left.matrix(), matrix(&wide, right))
}

/// `out [rows, columns] += left · right`, on all threads.
pub(crate) fn add_product(left: &Activations<'_>, right: Bf16Matrix<'_>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_supported() {
        return tasks::add_product(left, right, out);
    }
    let wide = widened(right);
    product::add_product(left.matrix(), matrix(&wide, right), out);
}

fn widened(right: Bf16Matrix<'_>) -> Vec<f32> {
    right.data.par_iter().map(|x| x.to_f32()).collect()
}

/// The widened numbers as `right` reads them.
fn matrix<'a>(wide: &'a [f32], right: Bf16Matrix<'_>) -> Matrix<'a> {
    match right.turned {
        false => Matrix::new(wide, right.rows, right.columns),
        true => Matrix::new(wide, right.columns, right.rows).transposed(),
    }
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

    fn rounded(x: &[f32]) -> Vec<bf16> {
        x.iter().map(|x| bf16::from_f32(*x)).collect()
    }

    /// Over operands that are both rounded to bf16, which the tests' numbers are from the start.
    fn obvious(left: &[f32], rows: usize, right: Bf16Matrix<'_>) -> Vec<f32> {
        let entry = |k: usize, j: usize| match right.turned {
            false => right.data[k * right.columns + j],
            true => right.data[j * right.rows + k],
        };
        let mut out = Vec::new();
        for i in 0..rows {
            for j in 0..right.columns {
                let sum: f64 = (0..right.rows)
                    .map(|k| f64::from(left[i * right.rows + k]) * f64::from(entry(k, j)))
                    .sum();
                out.push(sum as f32);
            }
        }
        out
    }

    /// Odd depths, edges of tiles, several blocks of depth and of rows.
    const SHAPES: [[usize; 3]; 9] = [
        [1, 1, 1],
        [3, 5, 7],
        [1, 576, 192],
        [9, 33, 47],
        [8, 2, 48],
        [13, 64, 49],
        [400, 37, 33],
        [20, 1601, 100],
        [17, 3100, 17],
    ];

    fn both_ways(weight: &[bf16], depth: usize, columns: usize) -> [Bf16Matrix<'_>; 2] {
        [
            Bf16Matrix::new(weight, depth, columns),
            Bf16Matrix::new(weight, columns, depth).transposed(),
        ]
    }

    #[test]
    fn products_are_those_of_the_obvious_loop() {
        for [rows, depth, columns] in SHAPES {
            let left: Vec<f32> = rounded(&numbers(rows * depth, 1))
                .iter()
                .map(|x| x.to_f32())
                .collect();
            let weight = rounded(&numbers(depth * columns, 2));
            for right in both_ways(&weight, depth, columns) {
                let want = obvious(&left, rows, right);
                let mut got = product(&Activations::new(&left, rows), right);
                let close = |got: &[f32], factor: f32| {
                    assert_eq!(got.len(), want.len());
                    for (got, want) in got.iter().zip(&want) {
                        let want = factor * want;
                        let off = (got - want).abs();
                        assert!(off <= 1e-4 * (1.0 + want.abs()), "{got} {want}");
                    }
                };
                close(&got, 1.0);
                add_product(&Activations::new(&left, rows), right, &mut got);
                close(&got, 2.0);
            }
        }
    }

    #[test]
    fn rounding_the_activations_costs_at_most_half_a_unit_each() {
        let [rows, depth, columns] = [5, 301, 50];
        let left = numbers(rows * depth, 3);
        let weight = rounded(&numbers(depth * columns, 4));
        for right in both_ways(&weight, depth, columns) {
            let (got, want) = (
                product(&Activations::new(&left, rows), right),
                obvious(&left, rows, right),
            );
            // |x| < 1 and |w| < 1: each term is off by at most 2⁻⁹.
            let bound = depth as f32 / 512.0 / 4.0;
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= bound, "{got} {want}");
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others_or_on_the_threads() {
        let [rows, depth, columns] = [401, 1700, 130];
        let left = numbers(rows * depth, 5);
        let weight = rounded(&numbers(depth * columns, 6));
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        for right in both_ways(&weight, depth, columns) {
            let all = product(&Activations::new(&left, rows), right);
            let alone = one.install(|| product(&Activations::new(&left, rows), right));
            assert_eq!(all, alone);
            #[cfg(target_arch = "x86_64")]
            if is_supported() {
                let last = product(&Activations::new(&left[400 * depth..], 1), right);
                assert_eq!(all[400 * columns..], last);
            }
        }
    }

    #[test]
    fn an_empty_product_is_zero_or_nothing() {
        assert_eq!(
            product(&Activations::new(&[], 2), Bf16Matrix::new(&[], 0, 3)),
            [0.0; 6]
        );
        assert!(product(&Activations::new(&[], 0), Bf16Matrix::new(&[], 0, 3)).is_empty());
    }

    #[test]
    fn widened_and_rounded_products_agree_to_rounding() {
        let [rows, depth, columns] = [6, 90, 21];
        let left = numbers(rows * depth, 7);
        let weight = rounded(&numbers(depth * columns, 8));
        for right in both_ways(&weight, depth, columns) {
            let wide = widened(right);
            let exact = product::product(Matrix::new(&left, rows, depth), matrix(&wide, right));
            for (got, want) in product(&Activations::new(&left, rows), right)
                .iter()
                .zip(&exact)
            {
                assert!((got - want).abs() <= 0.05, "{got} {want}");
            }
        }
    }
}
