//! A GGUF file read as a decoder: Hugging Face names, shapes and row order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use moe_kernels::Blocks;

use super::names::{hugging_face, is_rotary};
use super::sparse;
use super::tokenizer::{self, GgufTokenizer};
use super::{GgufFile, TensorInfo, config};
use crate::checkpoint::positioned::PositionedFile;
use crate::config::{Architecture, ModelConfig};
use crate::error::{Error, Result};

/// The weights, settings and vocabulary of a `.gguf` base.
#[derive(Debug)]
pub(in crate::checkpoint) struct GgufModel {
    file: GgufFile,
    config: ModelConfig,
    /// By Hugging Face name.
    tensors: BTreeMap<String, Stored>,
}

/// A tensor of the file, or an expert's part of one.
#[derive(Debug)]
struct Stored {
    /// Its GGUF name.
    name: String,
    info: TensorInfo,
}

impl GgufModel {
    pub(in crate::checkpoint) fn open(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        let config = config::read(&file)?;
        let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
        for (name, info) in file.tensors().filter(|(name, _)| !is_rotary(name)) {
            let parts = match &config.sparse {
                Some(sparse) => sparse::parts(&file, name, info, sparse)?,
                None => None,
            };
            let parts = parts.unwrap_or_else(|| vec![(hugging_face(name), info.clone())]);
            for (hf, info) in parts {
                let stored = Stored {
                    name: name.to_owned(),
                    info,
                };
                if let Some(twin) = tensors.insert(hf, stored) {
                    let message = format!("means the same as `{}`; the file is damaged", twin.name);
                    return Err(Error::tensor(path, name, message));
                }
            }
        }
        Ok(Self {
            file,
            config,
            tensors,
        })
    }

    pub(in crate::checkpoint) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(in crate::checkpoint) fn tokenizer(&self) -> Result<Option<GgufTokenizer>> {
        tokenizer::read(&self.file)
    }

    pub(in crate::checkpoint) fn chat_template(&self) -> Result<Option<&str>> {
        let metadata = self.file.metadata();
        metadata.str(self.file.path(), "tokenizer.chat_template")
    }

    pub(in crate::checkpoint) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(in crate::checkpoint) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|stored| &stored.info)
    }

    /// The file, and the bytes of a tensor there.
    pub(in crate::checkpoint) fn stored(
        &self,
        name: &str,
    ) -> Option<(&PositionedFile, Range<u64>)> {
        Some((&self.file.file, self.tensor(name)?.bytes.clone()))
    }

    pub(in crate::checkpoint) fn bytes_on_disk(&self) -> u64 {
        self.file.bytes_on_disk()
    }

    /// Dequantised; query and key rows back in rotate-half order.
    pub(in crate::checkpoint) fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let stored = self.place(name)?;
        let values = self.file.read_part(&stored.name, &stored.info)?;
        match self.is_permuted(name) {
            true => Ok(self.rotate_half_order(&values, self.rows(name))),
            false => Ok(values),
        }
    }

    /// As it is stored, where that is a matrix of blocks; query and key rows back in rotate-half order.
    pub(in crate::checkpoint) fn read_blocks(&self, name: &str) -> Result<Option<Blocks>> {
        let info = &self.place(name)?.info;
        let Some((format, dims @ [rows, _])) = info.blocks() else {
            return Ok(None);
        };
        let range = &info.bytes;
        let bytes = self.file.file.read(range.start, range.end - range.start)?;
        let bytes = match self.is_permuted(name) {
            true => self.rotate_half_order(&bytes, rows),
            false => bytes,
        };
        let refused = |message| Error::tensor(self.file.path(), name, message);
        let blocks = Blocks::new(format, bytes, dims);
        blocks.map(Some).map_err(refused)
    }

    pub(in crate::checkpoint) fn has_blocks(&self, name: &str) -> bool {
        self.tensor(name)
            .is_some_and(|info| info.blocks().is_some())
    }

    fn place(&self, name: &str) -> Result<&Stored> {
        self.tensors.get(name).ok_or_else(|| {
            let message = "not in this file under that Hugging Face name";
            Error::tensor(self.file.path(), name, message)
        })
    }

    /// Whether the rotary pairs of its rows are interleaved: only the llama converter does that; the others keep the Hugging Face order.
    fn is_permuted(&self, name: &str) -> bool {
        let llama = [Architecture::Llama, Architecture::Mixtral];
        llama.contains(&self.config.architecture)
            && (name.contains(".self_attn.q_proj.") || name.contains(".self_attn.k_proj."))
    }

    fn rotate_half_order<T: Copy>(&self, values: &[T], rows: usize) -> Vec<T> {
        rotate_half_order(values, self.config.head_dim, rows)
    }

    fn rows(&self, name: &str) -> usize {
        let shape = self.tensor(name).map(|tensor| tensor.shape.as_slice());
        shape.and_then(<[usize]>::first).copied().unwrap_or(0)
    }
}

/// Undoes the interleaving of rotary pairs: within a head, row `2i + half` of `values`
/// (numbers or bytes, `[rows, columns]`) becomes row `half · head_dim/2 + i`.
fn rotate_half_order<T: Copy>(values: &[T], head_dim: usize, rows: usize) -> Vec<T> {
    let columns = values.len().checked_div(rows).unwrap_or(0);
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks(head_dim * columns.max(1)) {
        for half in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = 2 * pair + half;
                out.extend_from_slice(&head[row * columns..][..columns]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_pairs_come_apart_into_halves() {
        // Two heads of 4 rows, 1 column: pairs (0,1) (2,3) → first of each, then second of each.
        let stored = [0., 1., 2., 3., 10., 11., 12., 13.];
        let order = rotate_half_order(&stored, 4, 8);
        assert_eq!(order, [0., 2., 1., 3., 10., 12., 11., 13.]);
        // Columns move with their row.
        let stored = [0., 0.5, 1., 1.5, 2., 2.5, 3., 3.5];
        let order = rotate_half_order(&stored, 4, 4);
        assert_eq!(order, [0., 0.5, 2., 2.5, 1., 1.5, 3., 3.5]);
    }
}
