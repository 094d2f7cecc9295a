//! Element types of safetensors files and their widening to f32.

use half::{bf16, f16};
use rayon::prelude::*;

/// Elements per parallel piece of a conversion.
const PIECE: usize = 1 << 16;

/// The element types of the safetensors format, as its headers spell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, non_camel_case_types)] // the names are the documentation
pub enum Dtype {
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

use Dtype::{
    BF16, BOOL, C64, F4, F6_E2M3, F6_E3M2, F8_E4M3, F8_E4M3FNUZ, F8_E5M2, F8_E5M2FNUZ, F8_E8M0,
    F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64,
};

const TYPES: [(Dtype, &str, u64); 22] = [
    (BOOL, "BOOL", 8),
    (F4, "F4", 4),
    (F6_E2M3, "F6_E2M3", 6),
    (F6_E3M2, "F6_E3M2", 6),
    (U8, "U8", 8),
    (I8, "I8", 8),
    (F8_E5M2, "F8_E5M2", 8),
    (F8_E4M3, "F8_E4M3", 8),
    (F8_E8M0, "F8_E8M0", 8),
    (F8_E4M3FNUZ, "F8_E4M3FNUZ", 8),
    (F8_E5M2FNUZ, "F8_E5M2FNUZ", 8),
    (I16, "I16", 16),
    (U16, "U16", 16),
    (F16, "F16", 16),
    (BF16, "BF16", 16),
    (I32, "I32", 32),
    (U32, "U32", 32),
    (F32, "F32", 32),
    (C64, "C64", 64),
    (F64, "F64", 64),
    (I64, "I64", 64),
    (U64, "U64", 64),
];

impl Dtype {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let found = TYPES.iter().find(|(_, known, _)| *known == name)?;
        Some(found.0)
    }

    fn row(self) -> &'static (Dtype, &'static str, u64) {
        let found = TYPES.iter().find(|(dtype, ..)| *dtype == self);
        found.expect("the table lists every variant")
    }

    /// As the header spells it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Size of one element; below 8 for packed types.
    pub fn bits(self) -> u64 {
        self.row().2
    }

    /// Little-endian `bytes` widened to f32, `None` unless the type is F64, F32, F16 or BF16.
    pub(super) fn widen(self, bytes: &[u8]) -> Option<Vec<f32>> {
        match self {
            F32 => Some(convert(bytes, f32::from_le_bytes)),
            F16 => Some(convert(bytes, |b| f16::from_le_bytes(b).to_f32())),
            BF16 => Some(convert(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            F64 => Some(convert(bytes, |b| f64::from_le_bytes(b) as f32)),
            _ => None,
        }
    }

    /// Little-endian `bytes` as whole numbers, `None` unless the type is BOOL or an integer that
    /// fits an i64.
    pub(super) fn integers(self, bytes: &[u8]) -> Option<Vec<i64>> {
        match self {
            BOOL | U8 => Some(bytes.iter().map(|&b| i64::from(b)).collect()),
            I8 => Some(convert(bytes, |b| i64::from(i8::from_le_bytes(b)))),
            I16 => Some(convert(bytes, |b| i64::from(i16::from_le_bytes(b)))),
            U16 => Some(convert(bytes, |b| i64::from(u16::from_le_bytes(b)))),
            I32 => Some(convert(bytes, |b| i64::from(i32::from_le_bytes(b)))),
            U32 => Some(convert(bytes, |b| i64::from(u32::from_le_bytes(b)))),
            I64 => Some(convert(bytes, i64::from_le_bytes)),
            _ => None,
        }
    }
}

/// Each group of `N` bytes through `read`, in parallel when there are many.
fn convert<const N: usize, T: Send>(bytes: &[u8], read: impl Fn([u8; N]) -> T + Sync) -> Vec<T> {
    let (groups, _) = bytes.as_chunks::<N>();
    groups
        .par_iter()
        .with_min_len(PIECE)
        .map(|&group| read(group))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_types_widen_to_the_same_number() {
        let f16_bytes = [0x00, 0x3c, 0x00, 0xc1, 0xff, 0x7b, 0x01, 0x00];
        let smallest = 2f32.powi(-24);
        assert_eq!(
            F16.widen(&f16_bytes).unwrap(),
            [1.0, -2.5, 65504.0, smallest]
        );
        assert_eq!(BF16.widen(&[0x80, 0x3f, 0x20, 0xc0]).unwrap(), [1.0, -2.5]);
        assert_eq!(F64.widen(&0.5f64.to_le_bytes()).unwrap(), [0.5]);
        assert_eq!(I32.widen(&[0; 4]), None);
    }

    #[test]
    fn every_name_reads_back() {
        for (dtype, name, _) in TYPES {
            assert_eq!(Dtype::parse(name), Some(dtype));
            assert_eq!(dtype.name(), name);
        }
        assert_eq!(Dtype::parse("F33"), None);
    }
}
