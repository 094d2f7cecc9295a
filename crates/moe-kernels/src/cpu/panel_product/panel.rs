//! Columns of the matrix in lanes of the shared axis, one f32 number or a pair of bf16 numbers in each, in the order in which the
//! tiles read them.

use std::arch::x86_64::*;
use std::mem::{MaybeUninit, transmute};

use burn::tensor::bf16;

use super::tile::{LANES, mask16, mask32};
use super::{Format, Stored};

/// Vectors of a tile.
pub(super) const VECTORS: usize = 3;
/// Columns of a panel.
pub(super) const COLUMNS: usize = VECTORS * LANES;

/// Some columns of one lane. A panel has [`VECTORS`] lines for every lane.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line([MaybeUninit<u32>; LANES]);

/// A part of a matrix: lanes `start..start + deep` of the shared axis, columns `first..first + width`.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(super) start: usize,
    pub(super) deep: usize,
    pub(super) first: usize,
    pub(super) width: usize,
}

/// Room for panels of `deep` lanes, with nothing in it; the transposing copy writes sixteen at a time.
pub(super) fn room(deep: usize) -> Vec<Line> {
    let lines = VECTORS * deep.next_multiple_of(LANES);
    let mut room = Vec::with_capacity(lines);
    // SAFETY: a line need not hold anything.
    unsafe { room.set_len(lines) };
    room
}

/// Numbers of a format in a lane.
pub(super) const fn in_lane<T>() -> usize {
    size_of::<u32>() / size_of::<T>()
}

/// Copies a part of the matrix into a panel.
///
/// # Safety
///
/// The processor has the instructions, and the matrix has the part.
pub(super) unsafe fn lay_out<T: Format>(right: Stored<'_, T>, part: Part, panel: &mut [Line]) {
    // SAFETY: the caller's promise.
    unsafe {
        match right.turned {
            false => T::lay_out_rows(right, part, panel),
            true => lay_out_columns(right, part, panel),
        }
    }
}

/// Asks for one of `shares` shares of a part, so that it is in the cache when it is laid out.
pub(super) fn prefetch<T>(right: Stored<'_, T>, part: Part, share: usize, shares: usize) {
    let line = 64 / size_of::<T>();
    // SAFETY: a hint reads nothing.
    let ask = |at: usize| unsafe {
        _mm_prefetch::<_MM_HINT_T1>(right.data.as_ptr().wrapping_add(at).cast());
    };
    let share_of = |all: usize| share * all / shares..(share + 1) * all / shares;
    let Part {
        start,
        deep,
        first,
        width,
    } = part;
    let (start, deep) = (in_lane::<T>() * start, in_lane::<T>() * deep);
    if right.turned {
        for column in share_of(width) {
            let from = (first + column) * right.rows + start;
            (0..deep).step_by(line).for_each(|row| ask(from + row));
        }
    } else {
        for row in share_of(deep) {
            let from = (start + row) * right.columns + first;
            let columns = (0..COLUMNS).step_by(line).chain([COLUMNS - 1]);
            columns.for_each(|column| ask(from + column));
        }
    }
}

/// A panel of an f32 matrix whose rows lie one after the other.
///
/// # Safety
///
/// As [`lay_out`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn lay_out_numbers(
    right: Stored<'_, f32>,
    Part {
        start,
        deep,
        first,
        width,
    }: Part,
    panel: &mut [Line],
) {
    for (row, lines) in panel.chunks_exact_mut(VECTORS).take(deep).enumerate() {
        let from = right.data[(start + row) * right.columns + first..].as_ptr();
        for (v, line) in lines.iter_mut().enumerate() {
            let mask = mask16(width.saturating_sub(LANES * v));
            // SAFETY: columns past the width are not read.
            let numbers =
                unsafe { _mm512_maskz_loadu_epi32(mask, from.wrapping_add(LANES * v).cast()) };
            store(line, numbers);
        }
    }
}

/// A panel of a bf16 matrix whose rows lie one after the other: rows 2p and 2p + 1 are interleaved.
///
/// # Safety
///
/// As [`lay_out`].
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn lay_out_pairs(
    right: Stored<'_, bf16>,
    Part {
        start,
        deep,
        first,
        width,
    }: Part,
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

/// A panel of a matrix whose columns lie one after the other: their lanes are transposed, 16 columns by 16 lanes at a time.
///
/// # Safety
///
/// As [`lay_out`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn lay_out_columns<T>(
    right: Stored<'_, T>,
    Part {
        start,
        deep,
        first,
        width,
    }: Part,
    panel: &mut [Line],
) {
    for vector in 0..VECTORS {
        let full = LANES * (vector + 1) <= width;
        for lane in (0..deep).step_by(LANES) {
            let row = in_lane::<T>() * (start + lane);
            let from = first + LANES * vector;
            let from = right.data.as_ptr().wrapping_add(from * right.rows + row);
            let lines = if full && row + in_lane::<T>() * LANES <= right.rows {
                // SAFETY: sixteen lanes of sixteen columns are there.
                unsafe { transposed(from.cast(), right.rows * size_of::<T>()) }
            } else {
                // The last lane of a bf16 column may be half there.
                let mask = mask32((right.rows - row) * 2 / in_lane::<T>());
                let mut columns = [[0u32; LANES]; LANES];
                for (place, column) in columns.iter_mut().enumerate() {
                    if LANES * vector + place < width {
                        let from = from.wrapping_add(place * right.rows);
                        // SAFETY: rows past the last are not read, nor columns past the width.
                        unsafe {
                            let numbers = _mm512_maskz_loadu_epi16(mask, from.cast());
                            _mm512_storeu_si512(column.as_mut_ptr().cast(), numbers);
                        }
                    }
                }
                // SAFETY: a square of numbers.
                unsafe { transposed(columns.as_ptr().cast(), size_of_val(&columns[0])) }
            };
            for (offset, line) in lines.into_iter().enumerate() {
                store(&mut panel[(lane + offset) * VECTORS + vector], line);
            }
        }
    }
}

/// 16 lanes of 16 columns that begin `column` bytes apart. Loads put four lanes of four columns into each vector, so that half of the
/// shuffles are left.
///
/// # Safety
///
/// The columns are there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transposed(from: *const u8, column: usize) -> [__m512i; LANES] {
    let mut lines = [_mm512_setzero_si512(); LANES];
    for four in 0..4 {
        macro_rules! quarter {
            ($index:expr) => {
                // SAFETY: four lanes of a column.
                unsafe { _mm_loadu_si128(from.wrapping_add($index * column + 16 * four).cast()) }
            };
        }
        let mut v = [_mm512_setzero_si512(); 4];
        for (index, v) in v.iter_mut().enumerate() {
            let start = _mm512_castsi128_si512(quarter!(index));
            let start = _mm512_mask_broadcast_i32x4(start, 0x00f0, quarter!(4 + index));
            let start = _mm512_mask_broadcast_i32x4(start, 0x0f00, quarter!(8 + index));
            *v = _mm512_mask_broadcast_i32x4(start, 0xf000, quarter!(12 + index));
        }
        let (low, high) = (
            _mm512_unpacklo_epi32(v[0], v[1]),
            _mm512_unpackhi_epi32(v[0], v[1]),
        );
        let (low2, high2) = (
            _mm512_unpacklo_epi32(v[2], v[3]),
            _mm512_unpackhi_epi32(v[2], v[3]),
        );
        lines[4 * four] = _mm512_unpacklo_epi64(low, low2);
        lines[4 * four + 1] = _mm512_unpackhi_epi64(low, low2);
        lines[4 * four + 2] = _mm512_unpacklo_epi64(high, high2);
        lines[4 * four + 3] = _mm512_unpackhi_epi64(high, high2);
    }
    lines
}
