//! Safetensors files: a strict reader, and checkpoints cut into several of them.

mod convert;
mod header;
mod sharded;
mod unique_map;
mod write;

use std::collections::HashMap;
use std::path::Path;

pub use ::safetensors::Dtype;
use moe_kernels::{BlockFormat, Blocks};

use self::header::Header;
pub use self::header::TensorEntry;
pub(super) use self::sharded::Sharded;
pub(super) use self::write::write;
use super::positioned::PositionedFile;
use crate::error::{Error, Result};

impl TensorEntry {
    /// Format and shape, where it is a matrix of 16-bit floats whose rows are whole blocks.
    pub(super) fn blocks(&self) -> Option<(BlockFormat, [usize; 2])> {
        let format = match self.dtype {
            Dtype::F16 => BlockFormat::F16,
            Dtype::BF16 => BlockFormat::BF16,
            _ => return None,
        };
        let dims: [usize; 2] = self.shape.as_slice().try_into().ok()?;
        dims[1]
            .is_multiple_of(format.elements())
            .then_some((format, dims))
    }
}

/// One safetensors file whose header is read and checked; data is read on demand.
#[derive(Debug)]
pub struct SafetensorsFile {
    file: PositionedFile,
    header: Header,
}

impl SafetensorsFile {
    /// Opens `path` and checks its header against the length of the file.
    ///
    /// # Errors
    /// When the file cannot be read or breaks the format: a header that is too long or not a JSON
    /// object with unique keys, an unknown dtype, a shape that does not fit its bytes, tensors that
    /// overlap or leave a gap, missing or extra data.
    pub fn open(path: &Path) -> Result<Self> {
        let file = PositionedFile::open(path)?;
        let header = header::read(&file)?;
        Ok(Self { file, header })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Length of the file.
    pub fn bytes_on_disk(&self) -> u64 {
        self.file.len()
    }

    /// Every tensor, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// Type and shape of a tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.header.tensors.get(name)
    }

    /// The free text under `__metadata__`.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.header.metadata
    }

    /// One float tensor, row-major, widened to f32. Non-finite values are returned as they are.
    ///
    /// # Errors
    /// When the name is unknown, the type is not F64, F32, F16 or BF16, or reading fails.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (tensor, bytes) = self.read(name)?;
        convert::widen(tensor.dtype, &bytes).ok_or_else(|| {
            let message = format!(
                "is of type {}, expected F32, F16, BF16 or F64",
                tensor.dtype
            );
            Error::tensor(self.path(), name, message)
        })
    }

    /// One matrix of 16-bit floats as it is stored; `None` for another type or shape, and for rows that are no multiple of 32.
    ///
    /// # Errors
    /// When the name is unknown, or reading fails.
    pub(super) fn read_blocks(&self, name: &str) -> Result<Option<Blocks>> {
        let Some((format, dims)) = self.tensor(name).and_then(TensorEntry::blocks) else {
            return Ok(None);
        };
        let (_, bytes) = self.read(name)?;
        let refused = |message| Error::tensor(self.path(), name, message);
        Blocks::new(format, bytes, dims).map(Some).map_err(refused)
    }

    /// One tensor of whole numbers (BOOL as 0 and 1), row-major.
    ///
    /// # Errors
    /// When the name is unknown, the type is not BOOL or an integer below U64, or reading fails.
    pub fn read_i64(&self, name: &str) -> Result<Vec<i64>> {
        let (tensor, bytes) = self.read(name)?;
        convert::integers(tensor.dtype, &bytes).ok_or_else(|| {
            let message = format!("is of type {}, expected integers", tensor.dtype);
            Error::tensor(self.path(), name, message)
        })
    }

    fn read(&self, name: &str) -> Result<(&TensorEntry, Vec<u8>)> {
        let tensor = self
            .tensor(name)
            .ok_or_else(|| Error::tensor(self.path(), name, "not in this file"))?;
        let bytes = &tensor.bytes;
        let bytes = self.file.read(bytes.start, bytes.end - bytes.start)?;
        Ok((tensor, bytes))
    }
}

#[cfg(test)]
mod tests;
