//! The innermost matrix product: a tile of at most [`ROWS`] × [`COLUMNS`] numbers kept in registers.

/// Rows of a tile: with two vectors each, 24 of the 32 AVX-512 registers.
pub(crate) const ROWS: usize = 12;
/// Columns of a tile, two AVX-512 vectors.
pub(crate) const COLUMNS: usize = 32;
const LANES: usize = 16;

/// What the processor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Avx512,
    Avx2,
    Any,
}

impl Level {
    #[inline]
    pub(crate) fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Any
    }
}

/// Left factor: entry (i, k) at `data[i · row + k · step]`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub(crate) data: *const f32,
    pub(crate) row: usize,
    pub(crate) step: usize,
}

/// Right factor: entry (k, j) at `data[k · step + j]`.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub(crate) data: *const f32,
    pub(crate) step: usize,
}

/// What the product is added to, entry (i, j) at `data[i · row + j]`; nothing when null.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) data: *const f32,
    pub(crate) row: usize,
}

impl Start {
    pub(crate) const ZERO: Self = Self {
        data: std::ptr::null(),
        row: 0,
    };
}

/// Result: entry (i, j) at `data[i · row + j]`.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) data: *mut f32,
    pub(crate) row: usize,
}

/// `out[rows, columns] = start + left · right`, the sum over `depth` entries.
///
/// # Safety
///
/// `rows ≤ ROWS`, `columns ≤ COLUMNS`, and every entry named by the four factors is there. `out` overlaps no factor, but may be `start`.
#[inline]
pub(crate) unsafe fn tile(
    [rows, columns]: [usize; 2],
    depth: usize,
    left: Left,
    right: Right,
    start: Start,
    out: Out,
) {
    debug_assert!((1..=ROWS).contains(&rows) && (1..=COLUMNS).contains(&columns));
    macro_rules! by_rows {
        ($function:ident, $vectors:literal) => {
            // SAFETY: the caller's promise, and the level that was matched.
            unsafe {
                match rows {
                    1 => $function::<1, $vectors>(columns, depth, left, right, start, out),
                    2 => $function::<2, $vectors>(columns, depth, left, right, start, out),
                    3 => $function::<3, $vectors>(columns, depth, left, right, start, out),
                    4 => $function::<4, $vectors>(columns, depth, left, right, start, out),
                    5 => $function::<5, $vectors>(columns, depth, left, right, start, out),
                    6 => $function::<6, $vectors>(columns, depth, left, right, start, out),
                    7 => $function::<7, $vectors>(columns, depth, left, right, start, out),
                    8 => $function::<8, $vectors>(columns, depth, left, right, start, out),
                    9 => $function::<9, $vectors>(columns, depth, left, right, start, out),
                    10 => $function::<10, $vectors>(columns, depth, left, right, start, out),
                    11 => $function::<11, $vectors>(columns, depth, left, right, start, out),
                    _ => $function::<12, $vectors>(columns, depth, left, right, start, out),
                }
            }
        };
    }
    match (Level::of_this_machine(), columns > LANES) {
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512, true) => by_rows!(avx512, 2),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512, false) => by_rows!(avx512, 1),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2, true) => by_rows!(avx2, 2),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2, false) => by_rows!(avx2, 1),
        (_, true) => by_rows!(any, 2),
        (_, false) => by_rows!(any, 1),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const M: usize, const V: usize>(
    columns: usize,
    depth: usize,
    left: Left,
    right: Right,
    start: Start,
    out: Out,
) {
    use std::arch::x86_64::*;
    let mask = |vector: usize| -> __mmask16 {
        let lanes = columns.saturating_sub(LANES * vector).min(LANES);
        ((1u32 << lanes) - 1) as __mmask16
    };
    let masks: [__mmask16; V] = std::array::from_fn(mask);
    let mut sums = [[_mm512_setzero_ps(); V]; M];
    let (mut a, mut b) = (left.data, right.data);
    for _ in 0..depth {
        let mut row = [_mm512_setzero_ps(); V];
        for v in 0..V {
            // SAFETY: masked lanes are not read; the others are there by the caller's promise.
            row[v] = unsafe { _mm512_maskz_loadu_ps(masks[v], b.wrapping_add(LANES * v)) };
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: entry (i, k) of the left factor.
            let x = _mm512_set1_ps(unsafe { *a.wrapping_add(i * left.row) });
            for v in 0..V {
                sums[v] = _mm512_fmadd_ps(x, row[v], sums[v]);
            }
        }
        a = a.wrapping_add(left.step);
        b = b.wrapping_add(right.step);
    }
    for (i, sums) in sums.into_iter().enumerate() {
        for v in 0..V {
            let mut sum = sums[v];
            if !start.data.is_null() {
                let from = start.data.wrapping_add(i * start.row + LANES * v);
                // SAFETY: masked as above.
                sum = _mm512_add_ps(sum, unsafe { _mm512_maskz_loadu_ps(masks[v], from) });
            }
            let to = out.data.wrapping_add(i * out.row + LANES * v);
            // SAFETY: masked as above.
            unsafe { _mm512_mask_storeu_ps(to, masks[v], sum) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const M: usize, const V: usize>(
    columns: usize,
    depth: usize,
    left: Left,
    right: Right,
    start: Start,
    out: Out,
) {
    // SAFETY: the caller's promise.
    unsafe { any::<M, V>(columns, depth, left, right, start, out) }
}

/// In plain Rust. The sums are fused as on the other levels.
#[inline(always)]
unsafe fn any<const M: usize, const V: usize>(
    columns: usize,
    depth: usize,
    left: Left,
    right: Right,
    start: Start,
    out: Out,
) {
    let mut sums = [[0f32; COLUMNS]; M];
    for k in 0..depth {
        // SAFETY: row k of the right factor has `columns` entries.
        let row =
            unsafe { std::slice::from_raw_parts(right.data.wrapping_add(k * right.step), columns) };
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: entry (i, k) of the left factor.
            let x = unsafe { *left.data.wrapping_add(i * left.row + k * left.step) };
            for (sum, y) in sums.iter_mut().zip(row) {
                *sum = x.mul_add(*y, *sum);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate().take(columns) {
            let from = if start.data.is_null() {
                0.0
            } else {
                // SAFETY: entry (i, j) of the start.
                unsafe { *start.data.wrapping_add(i * start.row + j) }
            };
            // SAFETY: entry (i, j) of the result.
            unsafe { *out.data.wrapping_add(i * out.row + j) = sum + from };
        }
    }
}
