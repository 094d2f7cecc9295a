//! Stored numbers back to f32, as ggml's reference code computes them.

use half::{bf16, f16};
use rayon::prelude::*;

use super::tensor_type::TensorType;

/// Elements per parallel piece; a multiple of every block size.
const PIECE: usize = 1 << 14;

/// `bytes`, whole blocks of `kind`, as f32 in file order. `None` for a type that is not decoded.
///
/// # Panics
/// When `bytes` is not `len` elements of `kind`; readers check that against the file first.
pub(super) fn dequantise(kind: TensorType, bytes: &[u8], len: usize) -> Option<Vec<f32>> {
    let (elements, size) = kind.block();
    assert_eq!(
        bytes.len() as u64 * elements,
        len as u64 * size,
        "whole blocks"
    );
    let blocks = kind.blocks();
    let decode = |bytes: &[u8], out: &mut [f32]| match (kind, blocks) {
        (TensorType::F32, _) => each(bytes, out, f32::from_le_bytes),
        (TensorType::F64, _) => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        // Tensors of them need not be whole blocks of 32.
        (TensorType::F16, _) => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        (TensorType::BF16, _) => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        (_, Some(format)) => moe_kernels::widen(format, bytes, out),
        (_, None) => unreachable!("refused above"),
    };
    if blocks.is_none() && !matches!(kind, TensorType::F32 | TensorType::F64) {
        return None;
    }
    let mut out = vec![0.0; len];
    out.par_chunks_mut(PIECE)
        .zip(bytes.par_chunks(PIECE / elements as usize * size as usize))
        .for_each(|(out, bytes)| decode(bytes, out));
    Some(out)
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = read(bytes);
    }
}
