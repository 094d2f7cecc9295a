use std::fmt;

use super::{Format, STRETCH, half};
use crate::cpu::simd::Simd;

/// A way to store numbers; the names are ggml's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types)]
pub enum BlockFormat {
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// Calls what is generic in a [`Format`] for a format: `with_format!(format, F => widen::<F>(…))`.
macro_rules! with_format {
    ($format:expr, $name:ident => $call:expr) => {{
        use $crate::blocks::BlockFormat as It;
        macro_rules! with {
            ($path:path) => {{
                type $name = $path;
                $call
            }};
        }
        match $format {
            It::F16 => with!($crate::blocks::format::F16),
            It::BF16 => with!($crate::blocks::format::BF16),
            It::Q4_0 => with!($crate::blocks::legacy::Q4_0),
            It::Q4_1 => with!($crate::blocks::legacy::Q4_1),
            It::Q5_0 => with!($crate::blocks::legacy::Q5_0),
            It::Q5_1 => with!($crate::blocks::legacy::Q5_1),
            It::Q8_0 => with!($crate::blocks::legacy::Q8_0),
            It::Q2_K => with!($crate::blocks::k_quants::Q2_K),
            It::Q3_K => with!($crate::blocks::k_quants::Q3_K),
            It::Q4_K => with!($crate::blocks::k_quants::Q4_K),
            It::Q5_K => with!($crate::blocks::k_quants::Q5_K),
            It::Q6_K => with!($crate::blocks::k_quants::Q6_K),
        }
    }};
}
pub(crate) use with_format;

impl BlockFormat {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// Numbers of a block.
    pub fn elements(self) -> usize {
        with_format!(self, F => STRETCH * <F as Format>::IN_BLOCK)
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        with_format!(self, F => <F as Format>::BYTES)
    }

    /// Bytes of `columns` numbers; `None` when they are no whole number of blocks.
    pub(crate) fn row_bytes(self, columns: usize) -> Option<usize> {
        let whole = columns.is_multiple_of(self.elements());
        whole.then(|| columns / self.elements() * self.bytes())
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self:?}")
    }
}

/// 32 half-precision numbers.
pub(crate) struct F16;

impl Format for F16 {
    const BYTES: usize = 64;
    const IN_BLOCK: usize = 1;
    type Stretch = [f32; STRETCH];

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], _stretch: usize) -> [f32; STRETCH] {
        let (numbers, _) = block[..64].as_chunks::<2>();
        let mut out = [0.0; STRETCH];
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = half::wide(u16::from_le_bytes(*number));
        }
        out
    }
}

/// 32 numbers of the upper half of a 32-bit number.
pub(crate) struct BF16;

impl Format for BF16 {
    const BYTES: usize = 64;
    const IN_BLOCK: usize = 1;
    type Stretch = [f32; STRETCH];

    #[inline(always)]
    unsafe fn read<S: Simd>(block: &[u8], _stretch: usize) -> [f32; STRETCH] {
        let (numbers, _) = block[..64].as_chunks::<2>();
        let mut out = [0.0; STRETCH];
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(*number)) << 16);
        }
        out
    }
}
