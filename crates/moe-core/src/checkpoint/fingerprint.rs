//! What tells one base from another: a hash of its tensors, whatever files they lie in.

use std::ops::Range;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::check::is_harmless;
use super::positioned::PositionedFile;
use super::{Checkpoint, Weights};
use crate::error::{Error, Result};

/// Bytes that are read at once; every thread holds as many.
const PIECE: usize = 1 << 20;

impl Checkpoint {
    /// SHA-256, in lower-case hexadecimal, of all tensors in the order of their names: name, storage type, shape and stored
    /// bytes of each. Settings, tokenizer and the cut into shards have no part in it, nor have tensors that nothing reads.
    ///
    /// Reads every weight once, in small pieces, and tensors side by side.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut names: Vec<&str> = self.names().filter(|name| !is_harmless(name)).collect();
        names.sort_unstable();
        let hashes: Vec<[u8; 32]> = names
            .par_iter()
            .map(|name| self.hash(name))
            .collect::<Result<_>>()?;
        Ok(hex::encode(Sha256::digest(hashes.as_flattened())))
    }

    /// SHA-256 of one tensor. Every part follows its length, so that no two tensors spell the same bytes.
    fn hash(&self, name: &str) -> Result<[u8; 32]> {
        let unknown = || Error::tensor(&self.path, name, "not in this checkpoint");
        let (file, bytes) = self.stored(name).ok_or_else(unknown)?;
        let dtype = self.dtype(name).ok_or_else(unknown)?;
        let shape = self.shape(name).ok_or_else(unknown)?;
        let mut hash = Sha256::new();
        for text in [name, &dtype] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update((shape.len() as u64).to_le_bytes());
        for &size in shape {
            hash.update((size as u64).to_le_bytes());
        }
        for start in bytes.clone().step_by(PIECE) {
            let len = (bytes.end - start).min(PIECE as u64);
            hash.update(file.read(start, len)?);
        }
        Ok(hash.finalize().into())
    }

    /// Where the bytes of a tensor lie.
    fn stored(&self, name: &str) -> Option<(&PositionedFile, Range<u64>)> {
        match &self.weights {
            Weights::Safetensors(files) => files.stored(name),
            Weights::Gguf(model) => model.stored(name),
        }
    }
}
