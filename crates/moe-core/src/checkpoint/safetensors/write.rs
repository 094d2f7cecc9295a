//! Safetensors files written tensor by tensor, so that one is in memory at a time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::bf16;
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Writes `tensors` (name, shape, F32 or BF16) to `path` with the numbers that `read` gives for each, rounded to the nearest where
/// they are to be BF16.
///
/// # Errors
/// When the file cannot be written, or `read` fails.
///
/// # Panics
/// When `read` gives another number of numbers than the shape says.
pub(in crate::checkpoint) fn write(
    path: &Path,
    mut tensors: Vec<(String, Vec<usize>, Dtype)>,
    mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
) -> Result<()> {
    // Wide numbers first, so that each begins at a multiple of its size.
    tensors.sort_by_key(|(_, _, dtype)| std::cmp::Reverse(dtype.bitsize()));
    let mut file = BufWriter::new(File::create_new(path).map_err(Error::io(path))?);
    file.write_all(&header(&tensors)).map_err(Error::io(path))?;
    for (name, shape, dtype) in tensors {
        let numbers = read(&name, &shape)?;
        let expected = shape.iter().product::<usize>();
        assert_eq!(numbers.len(), expected, "{name} {shape:?}");
        let bytes: Vec<u8> = match dtype {
            Dtype::BF16 => numbers
                .iter()
                .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                .collect(),
            _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        file.write_all(&bytes).map_err(Error::io(path))?;
    }
    file.flush().map_err(Error::io(path))
}

/// Its length in eight bytes, then what the tensors are; a whole number of eight bytes.
fn header(tensors: &[(String, Vec<usize>, Dtype)]) -> Vec<u8> {
    let mut entries = Map::new();
    // What transformers asks for before it reads a file.
    entries.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for (name, shape, dtype) in tensors {
        let begin = end;
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let entry =
            json!({"dtype": dtype.to_string(), "shape": shape, "data_offsets": [begin, end]});
        entries.insert(name.clone(), entry);
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}
