//! The header of a safetensors file: an 8-byte length, then a JSON object of tensors.
//!
//! Format: <https://huggingface.co/docs/safetensors>. Tensors must cover the data exactly: no
//! overlap, no gap, nothing after the last, so that no bytes hide in a file.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde_json::Value;

use super::unique_map::UniqueMap;
use crate::checkpoint::positioned::PositionedFile;
use crate::error::{Error, Result};

/// Longest header, a quarter of what the reference reader takes: as values, JSON takes up to sixteen times its bytes.
const MAX_HEADER: u64 = 25_000_000;

/// One tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// The element type.
    pub dtype: Dtype,
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// Bytes from the start of the file.
    pub(in crate::checkpoint) bytes: Range<u64>,
}

/// Tensors by name, and the free text of `__metadata__`.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) tensors: HashMap<String, TensorEntry>,
    pub(super) metadata: HashMap<String, String>,
}

/// Reads and checks the header of `file`.
pub(super) fn read(file: &PositionedFile) -> Result<Header> {
    let path = file.path();
    let refuse = |message: String| Err(Error::file(path, message));
    if file.len() < 8 {
        return refuse(format!(
            "{} bytes are too few for a safetensors file; is the download complete?",
            file.len()
        ));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&file.read(0, 8)?);
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return refuse(format!(
            "the first 8 bytes ask for a header of {length} bytes; this is not a safetensors file"
        ));
    }
    if length > file.len() - 8 {
        return refuse(format!(
            "the header should be {length} bytes long but only {} follow; the file is cut",
            file.len() - 8
        ));
    }
    let bytes = file.read(8, length)?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return refuse("the header is not UTF-8; this is not a safetensors file".into());
    };
    if !text.starts_with('{') {
        return refuse("the header must begin with `{`; this is not a safetensors file".into());
    }
    let entries: UniqueMap<UniqueMap<Value>> = serde_json::from_str(text)
        .map_err(|error| Error::file(path, format!("the header is not a valid one: {error}")))?;

    let start = 8 + length;
    let mut header = Header::default();
    for (name, fields) in entries.0 {
        if name == "__metadata__" {
            header.metadata = metadata(fields, path)?;
        } else {
            let entry = entry(&name, fields, start, path)?;
            header.tensors.insert(name, entry);
        }
    }
    check_cover(&header, start..file.len(), path)?;
    Ok(header)
}

fn metadata(fields: UniqueMap<Value>, path: &Path) -> Result<HashMap<String, String>> {
    let string = |(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        other => {
            let message = format!("expected a string, found {other}");
            Err(Error::config(path, format!("__metadata__.{key}"), message))
        }
    };
    fields.0.into_iter().map(string).collect()
}

fn entry(name: &str, fields: UniqueMap<Value>, start: u64, path: &Path) -> Result<TensorEntry> {
    let refuse = |message: String| Error::tensor(path, name, message);
    let known = |key: &str| ["dtype", "shape", "data_offsets"].contains(&key);
    if let Some((key, _)) = fields.0.iter().find(|(key, _)| !known(key)) {
        return Err(refuse(format!("unknown header key `{key}`")));
    }
    let fields = Value::Object(fields.0.into_iter().collect());
    let TensorInfo {
        dtype,
        shape,
        data_offsets: (begin, end),
    } = TensorInfo::deserialize(&fields).map_err(|error| {
        refuse(format!(
            "its header entry {fields} does not give a type, a list of sizes and two positions: {error}"
        ))
    })?;

    let stored = end.checked_sub(begin).ok_or_else(|| {
        refuse(format!(
            "data_offsets [{begin}, {end}] end before they begin"
        ))
    })?;
    let wanted = shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        .and_then(|elements| elements.checked_mul(dtype.bitsize()))
        .ok_or_else(|| refuse(format!("shape {shape:?} overflows")))?;
    if stored.checked_mul(8) != Some(wanted) {
        return Err(refuse(format!(
            "shape {shape:?} of {dtype} needs {} bytes, data_offsets give {stored}",
            wanted.div_ceil(8)
        )));
    }
    let absolute = |offset: usize| start.checked_add(offset as u64);
    match (absolute(begin), absolute(end)) {
        (Some(begin), Some(end)) => Ok(TensorEntry {
            dtype,
            shape,
            bytes: begin..end,
        }),
        _ => Err(refuse(format!("data_offsets [{begin}, {end}] overflow"))),
    }
}

/// In order of position every tensor begins where the one before it ended.
fn check_cover(header: &Header, data: Range<u64>, path: &Path) -> Result<()> {
    let mut tensors: Vec<_> = header.tensors.iter().collect();
    tensors.sort_by_key(|(name, tensor)| (tensor.bytes.start, tensor.bytes.end, *name));
    let mut covered = data.start;
    for (name, tensor) in tensors {
        let begin = tensor.bytes.start;
        if begin != covered {
            let relation = if begin < covered {
                "overlaps the tensor before it"
            } else {
                "leaves a gap after the tensor before it"
            };
            let message = format!(
                "begins at byte {begin}, expected {covered}: it {relation}; the file is damaged"
            );
            return Err(Error::tensor(path, name, message));
        }
        covered = tensor.bytes.end;
        if covered > data.end {
            let message = format!(
                "ends at byte {covered}, past the end of the file at {}; is the download complete?",
                data.end
            );
            return Err(Error::tensor(path, name, message));
        }
    }
    if covered != data.end {
        let message = format!(
            "{} bytes follow the last tensor; the file is damaged",
            data.end - covered
        );
        return Err(Error::file(path, message));
    }
    Ok(())
}
