//! The product on AVX-512 BF16. A task takes some columns and some rows: it lays its columns out as pairs of the shared axis, once
//! per [`DEPTH`] pairs and small enough for the cache, and multiplies all its rows with that panel, [`ROWS`] at a time, sums in registers.

use std::arch::x86_64::*;
use std::mem::{MaybeUninit, transmute};

use burn::tensor::bf16;
use rayon::prelude::*;

use super::Bf16Matrix;
use crate::cpu::pieces::Pieces;

/// Rows of a tile: with three vectors each, 24 of the 32 registers.
const ROWS: usize = 8;
/// Vectors of a tile.
const VECTORS: usize = 3;
const LANES: usize = 16;
/// Columns of a panel.
const COLUMNS: usize = VECTORS * LANES;
/// Pairs of the shared axis in a panel: 147 kB.
const DEPTH: usize = 768;
/// Rows that one task multiplies with a panel; laying the panel out takes about a hundredth of that time.
const TASK_ROWS: usize = 384;
/// Fewer multiplications than this are not worth waking a thread for.
const PARALLEL: usize = 1 << 16;

/// Whether the processor has the instructions.
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
}

/// See [`super::product`].
pub(super) fn product(left: &[f32], rows: usize, right: Bf16Matrix<'_>) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * right.columns);
    if right.rows == 0 {
        out.resize(rows * right.columns, 0.0);
        return out;
    }
    let places = &mut out.spare_capacity_mut()[..rows * right.columns];
    // SAFETY: the pieces are written before they are read: the first panel of every task stores without adding.
    let pieces = unsafe { Pieces::uninitialised(places) };
    run(left, rows, right, pieces, false);
    // SAFETY: every row and column belonged to one task, which wrote it.
    unsafe { out.set_len(rows * right.columns) };
    out
}

/// See [`super::add_product`].
pub(super) fn add_product(left: &[f32], rows: usize, right: Bf16Matrix<'_>, out: &mut [f32]) {
    assert_eq!(out.len(), rows * right.columns, "a result of another size");
    if right.rows > 0 {
        run(left, rows, right, Pieces::new(out), true);
    }
}

/// One panel's part of the shared axis after the other, laid out as `[pairs][COLUMNS]`.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u32; LANES]);

fn run(left: &[f32], rows: usize, right: Bf16Matrix<'_>, out: Pieces<'_>, add: bool) {
    assert_eq!(left.len(), rows * right.rows, "factors of different depth");
    let (depth, columns) = (right.rows, right.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(is_supported());
    let parallel = rows * columns * depth >= PARALLEL;
    let left = rounded(left, depth, parallel);
    let panels = columns.div_ceil(COLUMNS);
    // The transposing copy works on sixteen pairs at a time.
    let lines = VECTORS * depth.div_ceil(2).min(DEPTH).next_multiple_of(LANES);
    let task = |panel: &mut Vec<Line>, task: usize| {
        let first = (task / panels * TASK_ROWS, task % panels * COLUMNS);
        // SAFETY: the instructions are there, and no other task has these rows and columns.
        unsafe { block(&left, rows, right, first, panel, out, add) }
    };
    let room = || vec![Line([0; LANES]); lines];
    let tasks = 0..rows.div_ceil(TASK_ROWS) * panels;
    if parallel {
        tasks.into_par_iter().for_each_init(room, task);
    } else {
        let mut panel = room();
        tasks.for_each(|index| task(&mut panel, index));
    }
}

/// Rows from `first.0` on and columns from `first.1` on.
///
/// # Safety
///
/// The processor has the instructions; nobody else uses that part of `out [rows, right.columns]`, which is initialised where `add`.
unsafe fn block(
    left: &[u32],
    rows: usize,
    right: Bf16Matrix<'_>,
    first: (usize, usize),
    panel: &mut [Line],
    out: Pieces<'_>,
    add: bool,
) {
    let pairs = right.rows.div_ceil(2);
    let width = (right.columns - first.1).min(COLUMNS);
    for start in (0..pairs).step_by(DEPTH) {
        let deep = (pairs - start).min(DEPTH);
        // SAFETY: the instructions are there (as promised), `start` and `first` lie within the matrix.
        unsafe {
            match right.turned {
                false => lay_out_rows(right, start, deep, first.1, width, panel),
                true => lay_out_columns(right, start, deep, first.1, width, panel),
            }
        }
        for row in (first.0..rows.min(first.0 + TASK_ROWS)).step_by(ROWS) {
            let from = left[row * pairs + start..].as_ptr();
            let to = out.at(row * right.columns + first.1);
            let steps = [pairs, deep, right.columns, width];
            let add = add || start > 0;
            macro_rules! by_rows {
                ($($rows:literal)*) => {
                    match rows - row {
                        $($rows => tile::<$rows>(from, panel, to, steps, add),)*
                        _ => tile::<ROWS>(from, panel, to, steps, add),
                    }
                };
            }
            // SAFETY: `rows - row` rows and `width` columns of both factors and of the result are there.
            unsafe { by_rows!(1 2 3 4 5 6 7) }
        }
    }
}

/// `left [M, deep] · panel`, stored at `out` or added to it. `[pairs, deep, columns, width]`: from row to row of `left` and of `out`,
/// and how much of each is used.
///
/// # Safety
///
/// The processor has the instructions, and all that is named is there; what is added to is initialised.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn tile<const M: usize>(
    left: *const u32,
    panel: &[Line],
    out: *mut f32,
    [pairs, deep, columns, width]: [usize; 4],
    add: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; M];
    for (pair, lines) in panel.chunks_exact(VECTORS).take(deep).enumerate() {
        let lines: [__m512bh; VECTORS] =
            // SAFETY: a line is a vector of pairs.
            std::array::from_fn(|v| unsafe { transmute::<Line, __m512bh>(lines[v]) });
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: pair `pair` of a row that is there.
            let x = unsafe { *left.wrapping_add(row * pairs + pair) };
            let x = as_pairs(_mm512_set1_epi32(x as i32));
            for v in 0..VECTORS {
                sums[v] = _mm512_dpbf16_ps(sums[v], x, lines[v]);
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            let mask = mask16(width.saturating_sub(LANES * v));
            let to = out.wrapping_add(row * columns + LANES * v);
            // SAFETY: lanes past the width are neither read nor written.
            unsafe {
                let sum = match add {
                    true => _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, to)),
                    false => sum,
                };
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }
}

fn mask16(lanes: usize) -> __mmask16 {
    ((1u32 << lanes.min(LANES)) - 1) as __mmask16
}

fn mask32(lanes: usize) -> __mmask32 {
    ((1u64 << lanes.min(2 * LANES)) - 1) as __mmask32
}

#[target_feature(enable = "avx512f")]
fn as_pairs(x: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without meaning of their own.
    unsafe { transmute::<__m512i, __m512bh>(x) }
}

/// A panel of a matrix whose rows lie one after the other: rows 2p and 2p + 1 are interleaved.
///
/// # Safety
///
/// The processor has the instructions; the matrix has pairs `start..start + deep` and columns `first..first + width`.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn lay_out_rows(
    right: Bf16Matrix<'_>,
    start: usize,
    deep: usize,
    first: usize,
    width: usize,
    panel: &mut [Line],
) {
    let interleaved: [u16; 32] =
        std::array::from_fn(|lane| (lane / 2 + if lane % 2 == 0 { 0 } else { 32 }) as u16);
    // SAFETY: 32 numbers of 16 bits are a vector.
    let low = unsafe { transmute::<[u16; 32], __m512i>(interleaved) };
    let high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    let mask = [mask32(width), mask32(width.saturating_sub(2 * LANES))];
    let data: *const bf16 = right.data.as_ptr();
    for (pair, lines) in panel.chunks_exact_mut(VECTORS).take(deep).enumerate() {
        let row = 2 * (start + pair);
        let odd = row + 1 < right.rows;
        for (half, mask) in mask.into_iter().enumerate() {
            let from = data
                .wrapping_add(row * right.columns + first + 2 * LANES * half)
                .cast::<i16>();
            // SAFETY: lanes past the width are not read, and a row past the last has none.
            let (x, y) = unsafe {
                (
                    _mm512_maskz_loadu_epi16(mask, from),
                    _mm512_maskz_loadu_epi16(
                        if odd { mask } else { 0 },
                        from.wrapping_add(right.columns),
                    ),
                )
            };
            store(&mut lines[2 * half], _mm512_permutex2var_epi16(x, low, y));
            if let Some(line) = lines.get_mut(2 * half + 1) {
                store(line, _mm512_permutex2var_epi16(x, high, y));
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, x: __m512i) {
    // SAFETY: a line is 64 bytes, aligned.
    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), x) }
}

/// A panel of a matrix whose columns lie one after the other: their pairs are transposed, 16 columns by 16 pairs at a time.
///
/// # Safety
///
/// As [`lay_out_rows`]; the panel has room for `deep` rounded up to 16.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn lay_out_columns(
    right: Bf16Matrix<'_>,
    start: usize,
    deep: usize,
    first: usize,
    width: usize,
    panel: &mut [Line],
) {
    let data: *const bf16 = right.data.as_ptr();
    for vector in 0..VECTORS {
        for pair in (0..deep).step_by(LANES) {
            let row = 2 * (start + pair);
            let mask = mask32(right.rows - row);
            let mut lines = [_mm512_setzero_si512(); LANES];
            for (lane, line) in lines.iter_mut().enumerate() {
                let column = LANES * vector + lane;
                let mask = if column < width { mask } else { 0 };
                let from = data.wrapping_add((first + column) * right.rows + row);
                // SAFETY: rows past the last and columns past the width are not read.
                *line = unsafe { _mm512_maskz_loadu_epi16(mask, from.cast()) };
            }
            for (offset, line) in transposed(lines).into_iter().enumerate() {
                store(&mut panel[(pair + offset) * VECTORS + vector], line);
            }
        }
    }
}

/// 16 × 16 numbers: halves, quarters, eighths and sixteenths of the lines change places.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(mut lines: [__m512i; LANES]) -> [__m512i; LANES] {
    for step in [1, 2, 4, 8] {
        let from = |high: usize| -> __m512i {
            let lanes: [u32; LANES] = std::array::from_fn(|lane| {
                let second = lane & step != 0;
                let lane = (lane & !step) + if high == 1 { step } else { 0 };
                (lane + if second { LANES } else { 0 }) as u32
            });
            // SAFETY: 16 numbers of 32 bits are a vector.
            unsafe { transmute::<[u32; LANES], __m512i>(lanes) }
        };
        let (low, high) = (from(0), from(1));
        for line in (0..LANES).filter(|line| line & step == 0) {
            let (x, y) = (lines[line], lines[line + step]);
            lines[line] = _mm512_permutex2var_epi32(x, low, y);
            lines[line + step] = _mm512_permutex2var_epi32(x, high, y);
        }
    }
    lines
}

/// `x [rows, depth]` to the nearest bf16 numbers (ties to even), in pairs `[rows, ⌈depth / 2⌉]`; a missing last one is zero.
fn rounded(x: &[f32], depth: usize, parallel: bool) -> Vec<u32> {
    let pairs = depth.div_ceil(2);
    let rows = x.len() / depth;
    let mut out = Vec::with_capacity(rows * pairs);
    let room = &mut out.spare_capacity_mut()[..rows * pairs];
    let some_rows = |(x, out): (&[f32], &mut [MaybeUninit<u32>])| {
        for (x, out) in x.chunks_exact(depth).zip(out.chunks_exact_mut(pairs)) {
            // SAFETY: `run` made sure that the instructions are there.
            unsafe { round_row(x, out) }
        }
    };
    const SOME: usize = 32;
    if parallel {
        x.par_chunks(SOME * depth)
            .zip(room.par_chunks_mut(SOME * pairs))
            .for_each(some_rows);
    } else {
        some_rows((x, room));
    }
    // SAFETY: every row was written.
    unsafe { out.set_len(rows * pairs) };
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn round_row(x: &[f32], out: &mut [MaybeUninit<u32>]) {
    let places = 2 * out.len();
    let out = out.as_mut_ptr().cast::<i16>();
    for start in (0..places).step_by(2 * LANES) {
        let half = |from: usize| {
            let mask = mask16(x.len().saturating_sub(from));
            // SAFETY: entries past the last are not read.
            unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(from)) }
        };
        let both = _mm512_cvtne2ps_pbh(half(start + LANES), half(start));
        // SAFETY: both are 512 bits; places past the last are not written.
        unsafe {
            let both = transmute::<__m512bh, __m512i>(both);
            _mm512_mask_storeu_epi16(out.wrapping_add(start), mask32(places - start), both);
        }
    }
}
