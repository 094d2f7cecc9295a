//! Matrices in ggml's quantised blocks, as GGUF files hold them.
//!
//! A row is a run of blocks along the axis that a product sums over; every block carries its own scale. What is read of a matrix is a
//! [`Stretch`] of 32 numbers, whatever the size of a block: each has one formula, which every product, look-up and widening goes
//! through, so that a number is the same bit for bit wherever it is met.

pub(crate) mod format;
pub(crate) mod half;
pub(crate) mod k_quants;
pub(crate) mod legacy;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::cpu::simd::Simd;

pub use self::format::BlockFormat;
pub(crate) use self::format::with_format;

/// Numbers that are widened together.
pub(crate) const STRETCH: usize = 32;

/// Numbers that one task widens.
const TASK: usize = 1 << 15;

/// How one format stores numbers.
pub(crate) trait Format {
    /// Bytes of a block.
    const BYTES: usize;
    /// Stretches in a block.
    const IN_BLOCK: usize;
    /// What a stretch is read as.
    type Stretch: Stretch;

    /// Numbers `32 · stretch..` of a block.
    ///
    /// # Safety
    ///
    /// The processor has the instructions.
    unsafe fn read<S: Simd>(block: &[u8], stretch: usize) -> Self::Stretch;
}

/// 32 numbers of a row, on their way to vectors.
pub(crate) trait Stretch {
    /// Numbers `at..` as a vector.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and a whole vector lies in the stretch from `at`.
    unsafe fn vector<S: Simd>(&self, at: usize) -> S::Floats;

    /// All of them.
    ///
    /// # Safety
    ///
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn widen<S: Simd>(&self, out: &mut [f32; STRETCH]) {
        for at in (0..STRETCH).step_by(S::LANES) {
            // SAFETY: vectors of 8 or 16 fill a stretch.
            unsafe { S::store(out[at..].as_mut_ptr(), self.vector::<S>(at)) };
        }
    }
}

/// Integers under a scale and an offset for each half: `scale · q + offset`, rounded after either.
pub(crate) struct Scaled<const OFFSET: bool> {
    q: [i8; STRETCH],
    scale: [f32; 2],
    offset: [f32; 2],
}

impl<const OFFSET: bool> Stretch for Scaled<OFFSET> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, at: usize) -> S::Floats {
        let half = at / (STRETCH / 2);
        // SAFETY: the caller's promise.
        unsafe {
            let q = S::of_bytes(self.q[at..].as_ptr());
            let scaled = S::multiply(S::splat(self.scale[half]), q);
            match OFFSET {
                true => S::add(scaled, S::splat(self.offset[half])),
                false => scaled,
            }
        }
    }
}

impl Stretch for [f32; STRETCH] {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, at: usize) -> S::Floats {
        // SAFETY: the caller's promise.
        unsafe { S::load(self[at..].as_ptr()) }
    }
}

/// A matrix `[rows, columns]` whose rows are quantised, block after block. Cloning shares the bytes.
#[derive(Clone)]
pub struct Blocks {
    bytes: Arc<Vec<u8>>,
    format: BlockFormat,
    /// Those of `bytes` that belong to it.
    rows: Range<usize>,
    columns: usize,
}

impl Blocks {
    /// `bytes` as a matrix of `rows` rows with `columns` numbers each.
    ///
    /// # Errors
    ///
    /// When a row is no whole number of blocks, or the bytes are of another number of rows: what was expected.
    pub fn new(
        format: BlockFormat,
        bytes: Vec<u8>,
        [rows, columns]: [usize; 2],
    ) -> Result<Self, String> {
        let Some(row) = format.row_bytes(columns) else {
            return Err(format!(
                "rows of {columns} numbers are no whole blocks of {} in {format}",
                format.elements()
            ));
        };
        if Some(bytes.len()) != row.checked_mul(rows) {
            let found = bytes.len();
            return Err(format!(
                "{found} bytes, where {rows} rows of {columns} numbers in {format} take {row} each"
            ));
        }
        Ok(Self {
            bytes: Arc::new(bytes),
            format,
            rows: 0..rows,
            columns,
        })
    }

    /// `[rows, columns]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.rows.len(), self.columns]
    }

    /// How its numbers are stored.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Rows `start..start + len`, in the same memory.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn narrow(&self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.rows.len(), "rows past the last");
        let start = self.rows.start + start;
        Self {
            rows: start..start + len,
            ..self.clone()
        }
    }

    /// The rows of the given places, widened, `[places, columns]`.
    ///
    /// # Panics
    ///
    /// When there is no such row.
    pub fn select(&self, places: &[usize]) -> Vec<f32> {
        let mut out = vec![0.0; places.len() * self.columns];
        for (out, &place) in out.chunks_exact_mut(self.columns.max(1)).zip(places) {
            widen(self.format, self.narrow(place, 1).as_bytes(), out);
        }
        out
    }

    /// All numbers, `[rows, columns]`.
    pub fn widened(&self) -> Vec<f32> {
        let [rows, columns] = self.dims();
        let together = (TASK / columns.max(1)).max(1);
        let mut out = vec![0.0; rows * columns];
        out.par_chunks_mut((together * columns).max(1))
            .zip(
                self.as_bytes()
                    .par_chunks((together * self.row_bytes()).max(1)),
            )
            .for_each(|(out, bytes)| widen(self.format, bytes, out));
        out
    }

    /// Row after row.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        let row = self.row_bytes();
        &self.bytes[self.rows.start * row..self.rows.end * row]
    }

    pub(crate) fn row_bytes(&self) -> usize {
        let row = self.format.row_bytes(self.columns);
        row.expect("whole blocks, as they were made")
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [rows, columns] = self.dims();
        write!(out, "Blocks([{rows}, {columns}] in {})", self.format)
    }
}

/// The numbers of whole blocks.
///
/// # Panics
///
/// When `bytes` are not the blocks of as many numbers.
pub fn widen(format: BlockFormat, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        format.row_bytes(out.len()),
        Some(bytes.len()),
        "the blocks of as many numbers"
    );
    with_format!(format, F => all_stretches::<F>(bytes, out));
}

crate::cpu::levels!(all_stretches<F: Format>, stretches, (bytes: &[u8], out: &mut [f32]));

#[inline(always)]
fn stretches<F: Format, S: Simd>(bytes: &[u8], out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<STRETCH>();
    for (block, out) in bytes
        .chunks_exact(F::BYTES)
        .zip(out.chunks_exact_mut(F::IN_BLOCK))
    {
        for (stretch, out) in out.iter_mut().enumerate() {
            // SAFETY: this is compiled for the vectors.
            unsafe { F::read::<S>(block, stretch).widen::<S>(out) };
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Blocks of any bits but for their scales, which are between 2⁻⁷ and 2⁻³.
    pub(crate) fn blocks(format: BlockFormat, [rows, columns]: [usize; 2], seed: u32) -> Blocks {
        let count = rows * format.row_bytes(columns).unwrap();
        let any = numbers(count, seed).into_iter();
        let mut bytes: Vec<u8> = any.map(|it| (it.to_bits() >> 5) as u8).collect();
        let scales: &[usize] = match format {
            BlockFormat::F16 | BlockFormat::BF16 => &[],
            BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => &[0],
            BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4_K | BlockFormat::Q5_K => {
                &[0, 2]
            }
            BlockFormat::Q2_K => &[80, 82],
            BlockFormat::Q3_K => &[108],
            BlockFormat::Q6_K => &[208],
        };
        for block in bytes.chunks_exact_mut(format.bytes()) {
            for &at in scales {
                block[at + 1] = 0x20 | block[at + 1] & 0x0f;
            }
            if scales.is_empty() {
                // Numbers of either format that are near one.
                let upper = if format == BlockFormat::F16 {
                    0x38
                } else {
                    0x3f
                };
                block
                    .chunks_exact_mut(2)
                    .for_each(|it| it[1] = upper | it[1] & 0x80);
            }
        }
        Blocks::new(format, bytes, [rows, columns]).unwrap()
    }

    #[test]
    fn parts_of_a_matrix_are_those_of_the_widened_one() {
        for format in BlockFormat::ALL {
            let blocks = blocks(format, [9, 512], 1);
            let wide = blocks.widened();
            assert!(wide.iter().all(|it| it.is_finite()));
            assert_eq!(blocks.narrow(3, 4).widened(), wide[3 * 512..7 * 512]);
            assert_eq!(blocks.narrow(2, 6).narrow(1, 2).dims(), [2, 512]);
            let rows = [8, 0, 8]
                .map(|row| &wide[row * 512..(row + 1) * 512])
                .concat();
            assert_eq!(blocks.select(&[8, 0, 8]), rows);
        }
    }

    #[test]
    fn rows_are_whole_blocks() {
        let refused = |columns, bytes| {
            Blocks::new(BlockFormat::Q4_K, vec![0; bytes], [2, columns]).unwrap_err()
        };
        assert!(refused(255, 288).contains("whole blocks of 256"));
        assert!(refused(256, 287).contains("287 bytes"));
        assert!(Blocks::new(BlockFormat::Q4_K, vec![0; 288], [2, 256]).is_ok());
    }
}
