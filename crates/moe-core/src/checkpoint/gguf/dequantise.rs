//! Blocks of quantised numbers back to f32, as ggml's reference code computes them.

mod k_quants;
mod legacy;

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
    let decode: fn(&[u8], &mut [f32]) = match kind {
        TensorType::F32 => |bytes, out| each(bytes, out, f32::from_le_bytes),
        TensorType::F16 => |bytes, out| each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        TensorType::BF16 => |bytes, out| each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        TensorType::F64 => |bytes, out| each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        TensorType::Q4_0 => |bytes, out| blocks(bytes, out, legacy::q4_0),
        TensorType::Q4_1 => |bytes, out| blocks(bytes, out, legacy::q4_1),
        TensorType::Q5_0 => |bytes, out| blocks(bytes, out, legacy::q5_0),
        TensorType::Q5_1 => |bytes, out| blocks(bytes, out, legacy::q5_1),
        TensorType::Q8_0 => |bytes, out| blocks(bytes, out, legacy::q8_0),
        TensorType::Q2_K => |bytes, out| blocks(bytes, out, k_quants::q2_k),
        TensorType::Q3_K => |bytes, out| blocks(bytes, out, k_quants::q3_k),
        TensorType::Q4_K => |bytes, out| blocks(bytes, out, k_quants::q4_k),
        TensorType::Q5_K => |bytes, out| blocks(bytes, out, k_quants::q5_k),
        TensorType::Q6_K => |bytes, out| blocks(bytes, out, k_quants::q6_k),
        TensorType::I8
        | TensorType::I16
        | TensorType::I32
        | TensorType::I64
        | TensorType::Other(_) => return None,
    };
    let (elements, size) = kind.block();
    let piece_bytes = PIECE / elements as usize * size as usize;
    assert_eq!(
        bytes.len() as u64 * elements,
        len as u64 * size,
        "whole blocks"
    );
    let mut out = vec![0.0; len];
    out.par_chunks_mut(PIECE)
        .zip(bytes.par_chunks(piece_bytes))
        .for_each(|(out, bytes)| decode(bytes, out));
    Some(out)
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = read(bytes);
    }
}

fn blocks<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let (out, _) = out.as_chunks_mut::<ELEMENTS>();
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
        decode(bytes, out);
    }
}

/// The half-precision number at `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
