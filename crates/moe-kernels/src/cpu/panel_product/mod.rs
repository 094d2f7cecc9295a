//! Products of activations with a large matrix, f32 or bf16.
//!
//! A few rows read a matrix as it lies, once (`few_rows`). For more, where the processor has AVX-512, the matrix is laid out in panels
//! that the tiles read one after the other; elsewhere the product is that of the `gemm` crate. With AVX-512 BF16, which multiplies pairs of bf16 numbers, activations
//! that meet a bf16 matrix are rounded to bf16 too, and summed in 32 bits; without it the matrix is widened.
//! Every entry is summed in an order of its own, whatever the number of threads.

#[cfg(target_arch = "x86_64")]
mod ahead;
mod few_rows;
pub(crate) mod grouped;
#[cfg(target_arch = "x86_64")]
mod panel;
pub(crate) mod quantised;
#[cfg(target_arch = "x86_64")]
mod right;
#[cfg(target_arch = "x86_64")]
mod round;
#[cfg(target_arch = "x86_64")]
mod tasks;
#[cfg(target_arch = "x86_64")]
mod tile;

use std::borrow::Cow;

use burn::tensor::bf16;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::level::Level;
use super::product::{self, Matrix};
use few_rows::Number;

/// A matrix in memory: `data [rows, columns]`, or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    /// Columns lie one after the other, not rows.
    turned: bool,
}

impl<'a, T> Stored<'a, T> {
    /// Rows one after the other.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of another size");
        Self {
            data,
            rows,
            columns,
            turned: false,
        }
    }

    /// How wide it is.
    pub(crate) fn columns(&self) -> usize {
        self.columns
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
    /// `numbers [rows, depth]`. Without rows the depth is still that of the matrices that they meet.
    pub(crate) fn new(numbers: &'a [f32], [rows, depth]: [usize; 2]) -> Self {
        assert_eq!(numbers.len(), rows * depth, "rows of different lengths");
        Self {
            numbers,
            rows,
            depth,
            #[cfg(target_arch = "x86_64")]
            rounded: std::cell::OnceCell::new(),
        }
    }

    fn matrix(&self) -> Matrix<'a> {
        Matrix::new(self.numbers, self.rows, self.depth)
    }
}

/// A number format of the right factor.
pub(crate) trait Format: Number {
    /// Whether panels pay for a left factor of `rows` rows on this processor.
    #[cfg(target_arch = "x86_64")]
    fn has_panels(rows: usize) -> bool;

    /// The left factor in lanes of 32 bits, each as many numbers of the shared axis as fit into one.
    #[cfg(target_arch = "x86_64")]
    fn lanes<'a>(left: &'a Activations<'_>, parallel: bool) -> &'a [u32];

    /// Copies some columns of a matrix whose rows lie one after the other into a panel.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and the matrix has the part.
    #[cfg(target_arch = "x86_64")]
    unsafe fn lay_out_rows(right: Stored<'_, Self>, part: panel::Part, panel: &mut [panel::Line]);

    /// `left [M, deep] · panel`, stored at `out` or added to it. The lines `ahead` are asked for meanwhile.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and all that `sizes` name is there; the panel's first `deep` lanes are laid out, and
    /// what is added to is initialised.
    #[cfg(target_arch = "x86_64")]
    unsafe fn tile<const M: usize>(
        left: *const u32,
        panel: &[panel::Line],
        out: *mut f32,
        sizes: tile::Sizes,
        add: bool,
        ahead: &mut ahead::Ahead,
    );

    fn widened(data: &[Self]) -> Cow<'_, [f32]>;
}

impl Format for f32 {
    #[cfg(target_arch = "x86_64")]
    fn has_panels(rows: usize) -> bool {
        rows >= tile::ROWS && Level::of_this_process() == Level::Avx512
    }

    #[cfg(target_arch = "x86_64")]
    fn lanes<'a>(left: &'a Activations<'_>, _parallel: bool) -> &'a [u32] {
        let numbers = left.numbers;
        // SAFETY: the bits of a number, as long as the numbers live.
        unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn lay_out_rows(right: Stored<'_, f32>, part: panel::Part, panel: &mut [panel::Line]) {
        // SAFETY: the caller's promise.
        unsafe { panel::lay_out_numbers(right, part, panel) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn tile<const M: usize>(
        left: *const u32,
        panel: &[panel::Line],
        out: *mut f32,
        sizes: tile::Sizes,
        add: bool,
        ahead: &mut ahead::Ahead,
    ) {
        // SAFETY: the caller's promise.
        unsafe { tile::of_numbers::<M>(left, panel, out, sizes, add, ahead) }
    }

    fn widened(data: &[f32]) -> Cow<'_, [f32]> {
        data.into()
    }
}

impl Format for bf16 {
    #[cfg(target_arch = "x86_64")]
    fn has_panels(_rows: usize) -> bool {
        round::is_supported()
    }

    #[cfg(target_arch = "x86_64")]
    fn lanes<'a>(left: &'a Activations<'_>, parallel: bool) -> &'a [u32] {
        left.rounded
            .get_or_init(|| round::rounded(left.numbers, left.depth, parallel))
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn lay_out_rows(right: Stored<'_, bf16>, part: panel::Part, panel: &mut [panel::Line]) {
        // SAFETY: the caller's promise.
        unsafe { panel::lay_out_pairs(right, part, panel) }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn tile<const M: usize>(
        left: *const u32,
        panel: &[panel::Line],
        out: *mut f32,
        sizes: tile::Sizes,
        add: bool,
        ahead: &mut ahead::Ahead,
    ) {
        // SAFETY: the caller's promise.
        unsafe { tile::of_pairs::<M>(left, panel, out, sizes, add, ahead) }
    }

    fn widened(data: &[bf16]) -> Cow<'_, [f32]> {
        data.par_iter()
            .map(|x| x.to_f32())
            .collect::<Vec<f32>>()
            .into()
    }
}

/// Whether activations are rounded to bf16 where they meet a matrix of such numbers.
fn rounds_activations() -> bool {
    #[cfg(target_arch = "x86_64")]
    return round::is_supported();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `left · right [rows, columns]`, on all threads.
pub(crate) fn product<T: Format>(left: &Activations<'_>, right: Stored<'_, T>) -> Vec<f32> {
    if left.rows <= few_rows::MOST {
        return few_rows::product(left, right);
    }
    #[cfg(target_arch = "x86_64")]
    if T::has_panels(left.rows) {
        return tasks::product(left, right);
    }
    let wide = T::widened(right.data);
    product::product(left.matrix(), matrix(&wide, right))
}

/// `out [rows, columns] += left · right`, on all threads.
pub(crate) fn add_product<T: Format>(
    left: &Activations<'_>,
    right: Stored<'_, T>,
    out: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if T::has_panels(left.rows) {
        return tasks::add_product(left, right, out);
    }
    let wide = T::widened(right.data);
    product::add_product(left.matrix(), matrix(&wide, right), out);
}

/// The widened numbers as `right` reads them.
fn matrix<'a, T>(wide: &'a [f32], right: Stored<'_, T>) -> Matrix<'a> {
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

    /// Over operands that are both in the format, which the tests' numbers are from the start.
    fn obvious<T: Format + Into<f64>>(left: &[f32], rows: usize, right: Stored<'_, T>) -> Vec<f32> {
        let entry = |k: usize, j: usize| match right.turned {
            false => right.data[k * right.columns + j],
            true => right.data[j * right.rows + k],
        };
        let mut out = Vec::new();
        for i in 0..rows {
            for j in 0..right.columns {
                let sum: f64 = (0..right.rows)
                    .map(|k| f64::from(left[i * right.rows + k]) * entry(k, j).into())
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

    fn both_ways<T>(weight: &[T], depth: usize, columns: usize) -> [Stored<'_, T>; 2] {
        [
            Stored::new(weight, depth, columns),
            Stored::new(weight, columns, depth).transposed(),
        ]
    }

    fn assert_products<T: Format + Into<f64>>(round: impl Fn(f32) -> T) {
        for [rows, depth, columns] in SHAPES {
            let left = numbers(rows * depth, 1);
            let left: Vec<f32> = left.into_iter().map(|x| round(x).into() as f32).collect();
            let weight: Vec<T> = numbers(depth * columns, 2)
                .into_iter()
                .map(&round)
                .collect();
            for right in both_ways(&weight, depth, columns) {
                let want = obvious(&left, rows, right);
                let mut got = product(&Activations::new(&left, [rows, depth]), right);
                let close = |got: &[f32], factor: f32| {
                    assert_eq!(got.len(), want.len());
                    for (got, want) in got.iter().zip(&want) {
                        let want = factor * want;
                        let off = (got - want).abs();
                        assert!(off <= 1e-4 * (1.0 + want.abs()), "{got} {want}");
                    }
                };
                close(&got, 1.0);
                add_product(&Activations::new(&left, [rows, depth]), right, &mut got);
                close(&got, 2.0);
            }
        }
    }

    #[test]
    fn products_are_those_of_the_obvious_loop() {
        assert_products::<f32>(|x| x);
        assert_products(bf16::from_f32);
    }

    #[test]
    fn rounding_the_activations_costs_at_most_half_a_unit_each() {
        let [rows, depth, columns] = [5, 301, 50];
        let left = numbers(rows * depth, 3);
        let weight = rounded(&numbers(depth * columns, 4));
        for right in both_ways(&weight, depth, columns) {
            let (got, want) = (
                product(&Activations::new(&left, [rows, depth]), right),
                obvious(&left, rows, right),
            );
            // |x| < 1 and |w| < 1: each term is off by at most 2⁻⁹.
            let bound = depth as f32 / 512.0 / 4.0;
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= bound, "{got} {want}");
            }
        }
    }

    fn has_panels<T: Format>(_rows: usize) -> bool {
        #[cfg(target_arch = "x86_64")]
        return T::has_panels(_rows);
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    fn assert_rows_alone<T: Format>(
        weight: Vec<T>,
        [rows, depth, columns]: [usize; 3],
        least: usize,
    ) {
        let left = numbers(rows * depth, 5);
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        for right in both_ways(&weight, depth, columns) {
            let all = product(&Activations::new(&left, [rows, depth]), right);
            let alone = one.install(|| product(&Activations::new(&left, [rows, depth]), right));
            assert_eq!(all, alone);
            // In panels to the last bit; a few rows, and the `gemm` crate, are summed in another order.
            let exact = least > few_rows::MOST && has_panels::<T>(least);
            let off = if exact { 0.0 } else { 1e-3 };
            let last = &left[(rows - least) * depth..];
            let last = product(&Activations::new(last, [least, depth]), right);
            let all = &all[(rows - least) * columns..];
            assert_eq!(all.len(), last.len());
            for (all, last) in all.iter().zip(&last) {
                assert!((all - last).abs() <= off, "{all} {last}");
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others_or_on_the_threads() {
        let shape @ [_, depth, columns] = [401, 1700, 130];
        let weight = numbers(depth * columns, 6);
        assert_rows_alone(rounded(&weight), shape, 1);
        assert_rows_alone(rounded(&weight), shape, 9);
        assert_rows_alone(weight.clone(), shape, 1);
        assert_rows_alone(weight, shape, 9);
    }

    #[test]
    fn an_empty_product_is_zero_or_nothing() {
        fn assert_empty<T: Format>(weight: &[T; 6]) {
            let no_inputs = Stored::<T>::new(&[], 0, 3);
            let left = Activations::new(&[], [2, 0]);
            assert_eq!(product(&left, no_inputs), [0.0; 6]);
            let mut sum = vec![1.0; 6];
            add_product(&left, no_inputs, &mut sum);
            assert_eq!(sum, [1.0; 6]);
            for right in both_ways(weight, 2, 3) {
                let no_rows = Activations::new(&[], [0, 2]);
                assert!(product(&no_rows, right).is_empty());
                add_product(&no_rows, right, &mut []);
            }
        }
        assert_empty(&[1.0f32; 6]);
        assert_empty(&[bf16::ONE; 6]);
    }

    #[test]
    fn widened_and_rounded_products_agree_to_rounding() {
        let [rows, depth, columns] = [6, 90, 21];
        let left = numbers(rows * depth, 7);
        let weight = rounded(&numbers(depth * columns, 8));
        for right in both_ways(&weight, depth, columns) {
            let wide = Format::widened(right.data);
            let exact = product::product(Matrix::new(&left, rows, depth), matrix(&wide, right));
            for (got, want) in product(&Activations::new(&left, [rows, depth]), right)
                .iter()
                .zip(&exact)
            {
                assert!((got - want).abs() <= 0.05, "{got} {want}");
            }
        }
    }
}
