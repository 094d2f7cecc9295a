//! The head of a GGUF file: magic, counts, metadata, tensor table; and whether the data fits.

use std::collections::BTreeMap;
use std::path::Path;

use super::TensorInfo;
use super::cursor::Cursor;
use super::metadata::{Metadata, Value};
use super::tensor_type::TensorType;
use crate::error::{Error, Result};

/// Fewest bytes of a metadata entry: key length, type, one byte of value.
const MIN_PAIR: u64 = 8 + 4 + 1;
/// Fewest bytes of a tensor entry: name length, dimension count, type, offset.
const MIN_TENSOR: u64 = 8 + 4 + 4 + 8;
/// ggml's limit.
const MAX_DIMENSIONS: u32 = 4;

pub(super) fn read(path: &Path) -> Result<(Metadata, BTreeMap<String, TensorInfo>)> {
    let mut cursor = Cursor::open(path)?;
    let cursor = &mut cursor;
    check_magic(cursor)?;
    let tensor_count = cursor.count("tensors", MIN_TENSOR)?;
    let pair_count = cursor.count("metadata entries", MIN_PAIR)?;
    let metadata = Metadata::read(cursor, pair_count)?;
    let alignment = alignment(&metadata, path)?;

    let mut entries = Vec::new();
    for _ in 0..tensor_count {
        entries.push(Entry::read(cursor)?);
    }
    let data = cursor
        .position()
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| cursor.error("the data section overflows"))?;
    let file_len = cursor.position() + cursor.remaining();
    let mut tensors = BTreeMap::new();
    for entry in entries {
        let info = entry.place(data, alignment, file_len, path)?;
        if tensors.insert(entry.name.clone(), info).is_some() {
            let message = "stands in the file twice; the file is damaged";
            return Err(Error::tensor(path, entry.name, message));
        }
    }
    check_overlap(&tensors, path)?;
    Ok((metadata, tensors))
}

fn check_magic(cursor: &mut Cursor) -> Result<()> {
    let magic: [u8; 4] = cursor.bytes()?;
    if &magic != b"GGUF" {
        let message = format!("begins with {magic:02x?}, expected `GGUF`: not a GGUF file");
        return Err(Error::file(cursor.path(), message));
    }
    let version = cursor.u32()?;
    let message = match version {
        2 | 3 => return Ok(()),
        0x0200_0000 | 0x0300_0000 => {
            "is a big-endian GGUF file; convert it to little-endian".into()
        }
        other => format!("is of GGUF version {other}; expected 2 or 3: convert the model anew"),
    };
    Err(Error::file(cursor.path(), message))
}

fn alignment(metadata: &Metadata, path: &Path) -> Result<u64> {
    const KEY: &str = "general.alignment";
    match metadata.get(KEY) {
        None => Ok(32),
        Some(&Value::Unsigned(bytes)) if bytes.is_power_of_two() && bytes <= 1 << 30 => Ok(bytes),
        Some(_) => Err(Error::config(path, KEY, "expected a power of two")),
    }
}

/// A row of the tensor table as it stands in the file.
struct Entry {
    name: String,
    /// Row length first.
    dimensions: Vec<u64>,
    dtype: TensorType,
    offset: u64,
}

impl Entry {
    fn read(cursor: &mut Cursor) -> Result<Self> {
        let name = cursor.string()?;
        let count = cursor.u32()?;
        if count > MAX_DIMENSIONS {
            let message = format!("has {count} dimensions, expected at most {MAX_DIMENSIONS}");
            return Err(Error::tensor(cursor.path(), name, message));
        }
        let dimensions = (0..count).map(|_| cursor.u64()).collect::<Result<_>>()?;
        let id = cursor.u32()?;
        let dtype = TensorType::from_id(id).ok_or_else(|| {
            let message = format!("is of ggml type {id}, which is unknown or was withdrawn");
            Error::tensor(cursor.path(), &name, message)
        })?;
        Ok(Self {
            name,
            dimensions,
            dtype,
            offset: cursor.u64()?,
        })
    }

    /// Where the tensor lies, once it is known to lie inside the file.
    fn place(&self, data: u64, alignment: u64, file_len: u64, path: &Path) -> Result<TensorInfo> {
        let refuse = |message: String| Error::tensor(path, &self.name, message);
        let (elements, bytes) = self.dtype.block();
        let row = self.dimensions.first().copied().unwrap_or(1);
        if !row.is_multiple_of(elements) {
            return Err(refuse(format!(
                "rows of {row} are not whole blocks of {elements} ({})",
                self.dtype.name()
            )));
        }
        let size = self
            .dimensions
            .iter()
            .try_fold(1u64, |product, &size| product.checked_mul(size))
            .filter(|&len| usize::try_from(len).is_ok())
            .and_then(|len| (len / elements).checked_mul(bytes))
            .ok_or_else(|| refuse(format!("dimensions {:?} overflow", self.dimensions)))?;
        if !self.offset.is_multiple_of(alignment) {
            return Err(refuse(format!(
                "offset {} is not a multiple of the alignment {alignment}",
                self.offset
            )));
        }
        let start = data.checked_add(self.offset);
        let end = start.and_then(|start| start.checked_add(size));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= file_len)) else {
            return Err(refuse(format!(
                "{size} bytes at offset {} reach past the end of the file ({file_len} bytes); is \
                 the download complete?",
                self.offset
            )));
        };
        let shape: Vec<usize> = self.dimensions.iter().rev().map(|&d| d as usize).collect();
        Ok(TensorInfo {
            dtype: self.dtype,
            shape,
            bytes: start..end,
        })
    }
}

/// Padding between tensors is allowed, sharing bytes is not.
fn check_overlap(tensors: &BTreeMap<String, TensorInfo>, path: &Path) -> Result<()> {
    let filled = tensors.iter().filter(|(_, info)| !info.bytes.is_empty());
    let mut sorted: Vec<_> = filled.collect();
    sorted.sort_by_key(|(_, info)| info.bytes.start);
    for pair in sorted.windows(2) {
        let [(before, first), (name, second)] = [pair[0], pair[1]];
        if second.bytes.start < first.bytes.end {
            let message = format!("overlaps `{before}`; the file is damaged");
            return Err(Error::tensor(path, name, message));
        }
    }
    Ok(())
}
