//! GGUF files, versions 2 and 3: typed metadata, quantised tensors, and the decoders inside.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod config;
mod cursor;
mod dequantise;
mod layout;
mod metadata;
mod model;
mod names;
mod sparse;
mod tensor_type;
mod tokenizer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use moe_kernels::BlockFormat;

pub use self::metadata::{Array, Metadata, Value};
pub(super) use self::model::GgufModel;
pub use self::tensor_type::{OtherType, TensorType};
pub use self::tokenizer::GgufTokenizer;
use super::positioned::PositionedFile;
use crate::error::{Error, Result};

/// One tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The storage type.
    pub dtype: TensorType,
    /// Row-major, `[out, in]` for a matrix (GGUF itself lists the row length first).
    pub shape: Vec<usize>,
    /// Bytes from the start of the file.
    bytes: Range<u64>,
}

impl TensorInfo {
    /// Format and shape, where it is a matrix whose rows are whole blocks.
    fn blocks(&self) -> Option<(BlockFormat, [usize; 2])> {
        let format = self.dtype.blocks()?;
        let dims: [usize; 2] = self.shape.as_slice().try_into().ok()?;
        dims[1]
            .is_multiple_of(format.elements())
            .then_some((format, dims))
    }
}

/// A GGUF file whose header is read and checked; data is read on demand.
#[derive(Debug)]
pub struct GgufFile {
    file: PositionedFile,
    metadata: Metadata,
    tensors: BTreeMap<String, TensorInfo>,
}

impl GgufFile {
    /// Opens `path` and checks its tensor table against the length of the file.
    ///
    /// # Errors
    /// When the file cannot be read or breaks the format: wrong magic, version or byte order,
    /// counts and lengths the file cannot hold, unknown types, repeated keys or names, tensors that
    /// overlap, are misaligned, or reach past the end.
    pub fn open(path: &Path) -> Result<Self> {
        let file = PositionedFile::open(path)?;
        let (metadata, tensors) = layout::read(path)?;
        Ok(Self {
            file,
            metadata,
            tensors,
        })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Length of the file.
    pub fn bytes_on_disk(&self) -> u64 {
        self.file.len()
    }

    /// The key/value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor under its GGUF name, in order of name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .map(|(name, info)| (name.as_str(), info))
    }

    /// Type and shape of a tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// One tensor, row-major, dequantised to f32. Non-finite values are returned as they are.
    ///
    /// # Errors
    /// When the name is unknown, the type is not decoded, or reading fails.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let info = self
            .tensor(name)
            .ok_or_else(|| Error::tensor(self.path(), name, "not in this file"))?;
        self.read_part(name, info)
    }

    /// What lies at `info`: the tensor `name`, or a part of it.
    fn read_part(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
        let refuse = |message: String| Error::tensor(self.path(), name, message);
        let bytes = self
            .file
            .read(info.bytes.start, info.bytes.end - info.bytes.start)?;
        let len = info.shape.iter().product();
        dequantise::dequantise(info.dtype, &bytes, len).ok_or_else(|| {
            refuse(format!(
                "is of type {}, which is not decoded (F32, F16, BF16, F64, Q4_0, Q4_1, Q5_0, \
                 Q5_1, Q8_0 and Q2_K to Q6_K are); quantise the model to one of these",
                info.dtype.name()
            ))
        })
    }
}

#[cfg(test)]
mod tests;
