//! The innermost matrix product: at most [`ROWS`] × [`COLUMNS`] numbers, in tiles whose sums stay in registers.

use super::level::Level;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};

/// Rows that are asked for at once: a tile of AVX-512, two of AVX2.
pub(crate) const ROWS: usize = 12;
/// Columns that are asked for at once: a tile of AVX-512, two of AVX2.
pub(crate) const COLUMNS: usize = 32;

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

/// A product: its sizes and factors.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub(crate) depth: usize,
    pub(crate) left: Left,
    pub(crate) right: Right,
    pub(crate) start: Start,
    pub(crate) out: Out,
}

impl Product {
    /// The part of it from `row` and `column` on.
    fn from(&self, row: usize, column: usize) -> Self {
        let Self {
            depth,
            left,
            right,
            start,
            out,
        } = *self;
        let start = match start.data.is_null() {
            true => start,
            false => Start {
                data: start.data.wrapping_add(row * start.row + column),
                ..start
            },
        };
        Self {
            depth,
            left: Left {
                data: left.data.wrapping_add(row * left.row),
                ..left
            },
            right: Right {
                data: right.data.wrapping_add(column),
                ..right
            },
            start,
            out: Out {
                data: out.data.wrapping_add(row * out.row + column),
                ..out
            },
        }
    }
}

/// `out[rows, columns] = start + left · right`, the sum over `depth` entries.
///
/// # Safety
///
/// `rows ≤ ROWS`, `columns ≤ COLUMNS`, and every entry named by the four factors is there. `out` overlaps no factor, but may be `start`.
#[inline]
pub(crate) unsafe fn tile([rows, columns]: [usize; 2], product: Product) {
    debug_assert!((1..=ROWS).contains(&rows) && (1..=COLUMNS).contains(&columns));
    // SAFETY: the caller's promise, and the level that was matched.
    unsafe {
        match Level::of_this_process() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512([rows, columns], product),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2([rows, columns], product),
            _ => tiles::<Portable>([rows, columns], product),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn avx512(sizes: [usize; 2], product: Product) {
    // SAFETY: the caller's promise.
    unsafe { tiles::<Avx512>(sizes, product) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(sizes: [usize; 2], product: Product) {
    // SAFETY: the caller's promise.
    unsafe { tiles::<Avx2>(sizes, product) }
}

/// # Safety
///
/// As [`tile`], and the processor has the instructions.
#[inline(always)]
unsafe fn tiles<S: Simd>([rows, columns]: [usize; 2], product: Product) {
    let wide = S::VECTORS * S::LANES;
    for column in (0..columns).step_by(wide) {
        let width = (columns - column).min(wide);
        // One vector a row leaves registers for more rows.
        let narrow = width <= S::LANES;
        let at_once = if narrow {
            S::ROWS * S::VECTORS
        } else {
            S::ROWS
        };
        for row in (0..rows).step_by(at_once) {
            let (height, part) = ((rows - row).min(at_once), product.from(row, column));
            // SAFETY: the caller's promise.
            unsafe {
                match (narrow, width.is_multiple_of(S::LANES)) {
                    (true, true) => by_rows::<S, 1, true>(height, width, part),
                    (true, false) => by_rows::<S, 1, false>(height, width, part),
                    (false, true) => by_rows::<S, 2, true>(height, width, part),
                    (false, false) => by_rows::<S, 2, false>(height, width, part),
                }
            }
        }
    }
}

/// # Safety
///
/// As [`tiles`], of a part that registers hold: `columns` fill `V` vectors where `WHOLE`.
#[inline(always)]
unsafe fn by_rows<S: Simd, const V: usize, const WHOLE: bool>(
    rows: usize,
    columns: usize,
    product: Product,
) {
    macro_rules! of_rows {
        ($($rows:literal)*) => {
            match rows {
                $($rows => of_size::<S, $rows, V, WHOLE>(columns, product),)*
                _ => unreachable!("a tile has at most {ROWS} rows"),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe { of_rows!(1 2 3 4 5 6 7 8 9 10 11 12) }
}

/// # Safety
///
/// As [`by_rows`], of `M` rows.
#[inline(always)]
unsafe fn of_size<S: Simd, const M: usize, const V: usize, const WHOLE: bool>(
    columns: usize,
    Product {
        depth,
        left,
        right,
        start,
        out,
    }: Product,
) {
    // SAFETY: the processor has the instructions; lanes past the columns are neither read nor written; all else is there by the
    // caller's promise.
    unsafe {
        let masks: [S::Mask; V] =
            std::array::from_fn(|v| S::mask(columns.saturating_sub(S::LANES * v)));
        let load = |from: *const f32, v: usize| match WHOLE {
            true => S::load(from.wrapping_add(S::LANES * v)),
            false => S::load_some(from.wrapping_add(S::LANES * v), masks[v]),
        };
        let mut sums = [[S::splat(0.0); V]; M];
        let (mut a, mut b) = (left.data, right.data);
        for _ in 0..depth {
            let row: [S::Floats; V] = std::array::from_fn(|v| load(b, v));
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*a.wrapping_add(i * left.row));
                for v in 0..V {
                    sums[v] = S::multiply_add(x, row[v], sums[v]);
                }
            }
            a = a.wrapping_add(left.step);
            b = b.wrapping_add(right.step);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (v, mut sum) in sums.into_iter().enumerate() {
                if !start.data.is_null() {
                    sum = S::add(sum, load(start.data.wrapping_add(i * start.row), v));
                }
                let to = out.data.wrapping_add(i * out.row + S::LANES * v);
                match WHOLE {
                    true => S::store(to, sum),
                    false => S::store_some(to, masks[v], sum),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Way = unsafe fn([usize; 2], Product);

    /// The tiles of every level that the processor has.
    fn ways() -> Vec<(Level, Way)> {
        let mut ways: Vec<(Level, Way)> = vec![(Level::Portable, tiles::<Portable>)];
        #[cfg(target_arch = "x86_64")]
        ways.extend([(Level::Avx2, avx2 as Way), (Level::Avx512, avx512)]);
        ways.retain(|(level, _)| *level <= Level::of_this_machine());
        ways
    }

    /// Numbers that any order of sums leaves exact.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let number = |place: usize| ((place * 7 + seed * 13) % 17) as f32 - 8.0;
        (0..count).map(number).collect()
    }

    #[test]
    fn a_tile_of_every_size_is_the_obvious_loop_on_every_level_and_touches_nothing_else() {
        let depth = 5;
        for (level, way) in ways() {
            for rows in 1..=ROWS {
                for columns in 1..=COLUMNS {
                    let (left, right) = (numbers(rows * depth, 1), numbers(depth * columns, 2));
                    let start = numbers(rows * columns, 3);
                    let step = columns + 3;
                    let mut out = vec![0.5f32; rows * step];
                    let product = Product {
                        depth,
                        left: Left {
                            data: left.as_ptr(),
                            row: depth,
                            step: 1,
                        },
                        right: Right {
                            data: right.as_ptr(),
                            step: columns,
                        },
                        start: Start {
                            data: start.as_ptr(),
                            row: columns,
                        },
                        out: Out {
                            data: out.as_mut_ptr(),
                            row: step,
                        },
                    };
                    // SAFETY: the sizes are those of the slices, and the processor has the level.
                    unsafe { way([rows, columns], product) };
                    for (i, row) in out.chunks(step).enumerate() {
                        for (j, got) in row.iter().enumerate() {
                            let want = match j < columns {
                                true => (0..depth)
                                    .map(|k| left[i * depth + k] * right[k * columns + j])
                                    .fold(start[i * columns + j], |sum, x| sum + x),
                                false => 0.5,
                            };
                            assert_eq!(*got, want, "{level}: {rows} x {columns} at {i}, {j}");
                        }
                    }
                }
            }
        }
    }
}
