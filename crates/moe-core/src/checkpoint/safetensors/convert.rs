//! Elements of safetensors files as f32 and as whole numbers.

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// Elements per parallel piece of a conversion.
const PIECE: usize = 1 << 16;

/// Little-endian `bytes` widened to f32, `None` unless the type is F64, F32, F16 or BF16.
pub(super) fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(convert(bytes, f32::from_le_bytes)),
        Dtype::F16 => Some(convert(bytes, |b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Some(convert(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        Dtype::F64 => Some(convert(bytes, |b| f64::from_le_bytes(b) as f32)),
        _ => None,
    }
}

/// Little-endian `bytes` as whole numbers, `None` unless the type is BOOL or an integer that fits an i64.
pub(super) fn integers(dtype: Dtype, bytes: &[u8]) -> Option<Vec<i64>> {
    match dtype {
        Dtype::BOOL | Dtype::U8 => Some(bytes.iter().map(|&b| i64::from(b)).collect()),
        Dtype::I8 => Some(convert(bytes, |b| i64::from(i8::from_le_bytes(b)))),
        Dtype::I16 => Some(convert(bytes, |b| i64::from(i16::from_le_bytes(b)))),
        Dtype::U16 => Some(convert(bytes, |b| i64::from(u16::from_le_bytes(b)))),
        Dtype::I32 => Some(convert(bytes, |b| i64::from(i32::from_le_bytes(b)))),
        Dtype::U32 => Some(convert(bytes, |b| i64::from(u32::from_le_bytes(b)))),
        Dtype::I64 => Some(convert(bytes, i64::from_le_bytes)),
        _ => None,
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
            widen(Dtype::F16, &f16_bytes).unwrap(),
            [1.0, -2.5, 65504.0, smallest]
        );
        assert_eq!(
            widen(Dtype::BF16, &[0x80, 0x3f, 0x20, 0xc0]).unwrap(),
            [1.0, -2.5]
        );
        assert_eq!(widen(Dtype::F64, &0.5f64.to_le_bytes()).unwrap(), [0.5]);
        assert_eq!(widen(Dtype::I32, &[0; 4]), None);
    }
}
