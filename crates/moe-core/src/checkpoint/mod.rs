//! Weights, settings and tokenizer of a base model, from a Hugging Face folder or a GGUF file.
//!
//! Files come from strangers. Every size is checked against the length of the file before memory
//! is asked for, and every shape against the model's settings before a weight is read.

mod check;
mod fingerprint;
mod folder;
pub mod gguf;
mod named;
pub(crate) mod pointer;
mod positioned;
pub mod safetensors;
mod save;
mod special;

use std::path::{Path, PathBuf};

use moe_kernels::Blocks;
use rayon::prelude::*;

use self::gguf::{GgufModel, GgufTokenizer};
use self::safetensors::Sharded;
pub use self::save::save_folder;
pub use self::special::AnswerEnds;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::BaseDtype;
use crate::tokenizer::NamedToken;

/// A base model on disk: headers are read and checked, weights are read on demand.
///
/// Names are those of Hugging Face (`model.layers.0.self_attn.q_proj.weight`) whatever the format,
/// matrices are `[out, in]` and row-major, and rotary pairs are in the rotate-half order.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: ModelConfig,
    weights: Weights,
    tokenizer: Option<TokenizerSource>,
    named: named::Named,
    chat_template: Option<String>,
}

/// The two ways weights are stored.
#[derive(Debug)]
enum Weights {
    Safetensors(Sharded),
    Gguf(Box<GgufModel>),
}

/// Where a checkpoint keeps its tokenizer.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// A `tokenizer.json`.
    File(PathBuf),
    /// The vocabulary and merges in the metadata of a GGUF file.
    Gguf(GgufTokenizer),
}

impl Checkpoint {
    /// Opens a Hugging Face folder (`config.json` with `model.safetensors` or
    /// `model.safetensors.index.json`), a `.gguf` file, or a folder that holds exactly one.
    ///
    /// A `tokenizer.json` beside a `.gguf` file is read in place of the vocabulary in it, and so are then the files that say more of
    /// that tokenizer (`tokenizer_config.json`, `chat_template.jinja`, …); what they leave out is the GGUF file's. Settings and
    /// weights are always those of the GGUF file.
    ///
    /// # Errors
    /// When a file is missing, damaged or not supported, and when tensors are missing, left over or
    /// of another shape than the settings ask for. Messages name the file and the tensor or key.
    pub fn open(path: &Path) -> Result<Self> {
        let checkpoint = if path.is_dir() {
            folder::open(path)?
        } else {
            Self::open_file(path)?
        };
        check::check(&checkpoint)?;
        Ok(checkpoint)
    }

    fn open_file(path: &Path) -> Result<Self> {
        std::fs::metadata(path).map_err(Error::io(path))?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_none_or(|extension| !extension.eq_ignore_ascii_case("gguf")) {
            let message = "expected a .gguf file or the folder of a Hugging Face checkpoint";
            return Err(Error::file(path, message));
        }
        let model = GgufModel::open(path)?;
        let own = model.tokenizer()?.map(TokenizerSource::Gguf);
        let own_template = model.chat_template()?.map(str::to_owned);
        let dir = path.parent().unwrap_or(Path::new(""));
        let (tokenizer, named, chat_template) = match dir.join("tokenizer.json").exists() {
            true => {
                let beside = folder::Beside::read(dir)?;
                let tokenizer = beside.tokenizer.map(TokenizerSource::File);
                let template = beside.chat_template.or(own_template);
                (tokenizer.or(own), beside.named, template)
            }
            false => (own, named::Named::default(), own_template),
        };
        Ok(Self {
            path: path.to_path_buf(),
            config: model.config().clone(),
            tokenizer,
            named,
            chat_template,
            weights: Weights::Gguf(Box::new(model)),
        })
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Every tensor in the files, under its Hugging Face name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names: Box<dyn Iterator<Item = &str>> = match &self.weights {
            Weights::Safetensors(files) => Box::new(files.names()),
            Weights::Gguf(model) => Box::new(model.names()),
        };
        names
    }

    /// `[out, in]` of a matrix, `[size]` of a norm or bias; `None` for an unknown name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match &self.weights {
            Weights::Safetensors(files) => files.tensor(name).map(|tensor| tensor.shape.as_slice()),
            Weights::Gguf(model) => model.tensor(name).map(|tensor| tensor.shape.as_slice()),
        }
    }

    /// The storage type as its format spells it (`BF16`, `Q4_1`); `None` for an unknown name.
    pub fn dtype(&self, name: &str) -> Option<String> {
        match &self.weights {
            Weights::Safetensors(files) => {
                files.tensor(name).map(|tensor| tensor.dtype.to_string())
            }
            Weights::Gguf(model) => model.tensor(name).map(|tensor| tensor.dtype.name().into()),
        }
    }

    /// One tensor, row-major, widened or dequantised to f32.
    ///
    /// # Errors
    /// When the name is unknown, the type is not a supported float type, the file cannot be read,
    /// or a value is not finite (a damaged checkpoint: one NaN spreads to every output).
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let values = match &self.weights {
            Weights::Safetensors(files) => files.read_f32(name)?,
            Weights::Gguf(model) => model.read_f32(name)?,
        };
        let Some(index) = first_not_finite(&values) else {
            return Ok(values);
        };
        Err(self.not_finite(name, index, values[index]))
    }

    fn not_finite(&self, name: &str, index: usize, value: f32) -> Error {
        let message =
            format!("element {index} is {value}, not a finite number; the checkpoint is damaged");
        Error::tensor(&self.path, name, message)
    }

    /// Bytes of all tensors in memory, once they are loaded for the CPU with matrices in `dtype`.
    pub fn bytes_in_memory(&self, dtype: BaseDtype) -> u64 {
        let of = |name: &str| {
            let shape = self.shape(name).unwrap_or_default();
            let numbers = shape.iter().product::<usize>() as u64;
            match (dtype, shape.len()) {
                (BaseDtype::Bf16, 2) => 2 * numbers,
                (BaseDtype::Stored, 2) => self.bytes_as_blocks(name).unwrap_or(4 * numbers),
                _ => 4 * numbers,
            }
        };
        self.names().map(of).sum()
    }

    /// Bytes of a matrix that [`Self::read_blocks`] leaves as it is.
    fn bytes_as_blocks(&self, name: &str) -> Option<u64> {
        let is_expert = name.contains(".experts.");
        let range = match &self.weights {
            Weights::Safetensors(files) => files.has_blocks(name).then(|| files.stored(name)),
            Weights::Gguf(model) => model.has_blocks(name).then(|| model.stored(name)),
        };
        let (_, range) = range.flatten().filter(|_| !is_expert)?;
        Some(range.end - range.start)
    }

    /// One matrix as it is stored: quantised blocks, or numbers of 16 bits where a row has a multiple of 32. `None` where it is stored
    /// otherwise, in f32 for one.
    ///
    /// # Errors
    /// As [`Self::read_f32`].
    pub fn read_blocks(&self, name: &str) -> Result<Option<Blocks>> {
        let stored = match &self.weights {
            Weights::Safetensors(files) => files.read_blocks(name)?,
            Weights::Gguf(model) => model.read_blocks(name)?,
        };
        let Some(blocks) = stored else {
            return Ok(None);
        };
        let [rows, columns] = blocks.dims();
        let together = (WIDENED_AT_ONCE / columns.max(1)).max(1);
        for first in (0..rows).step_by(together) {
            let numbers = blocks.narrow(first, together.min(rows - first)).widened();
            if let Some(index) = first_not_finite(&numbers) {
                let value = numbers[index];
                return Err(self.not_finite(name, first * columns + index, value));
            }
        }
        Ok(Some(blocks))
    }

    /// Tokens that the files beside the tokenizer name.
    pub(crate) fn named_tokens(&self) -> &[NamedToken] {
        self.named.tokens()
    }

    /// The vocabulary in the weight file, where that has one.
    pub(crate) fn stored_vocabulary(&self) -> Result<Option<GgufTokenizer>> {
        match &self.weights {
            Weights::Gguf(model) => model.tokenizer(),
            Weights::Safetensors(_) => Ok(None),
        }
    }

    /// Where the tokenizer is. `moe_core::tokenizer` builds it.
    ///
    /// # Errors
    /// When the checkpoint holds none.
    pub fn tokenizer_source(&self) -> Result<TokenizerSource> {
        self.tokenizer.clone().ok_or_else(|| {
            let message = "no tokenizer: a folder needs tokenizer.json, a GGUF file \
                           tokenizer.ggml.tokens or a tokenizer.json beside it";
            Error::file(&self.path, message)
        })
    }

    /// The Jinja source of the chat template: `chat_template.jinja`, `tokenizer_config.json`, or
    /// the metadata of a GGUF file.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Bytes of all weight files together.
    pub fn bytes_on_disk(&self) -> u64 {
        match &self.weights {
            Weights::Safetensors(files) => files.bytes_on_disk(),
            Weights::Gguf(model) => model.bytes_on_disk(),
        }
    }
}

/// Numbers that are widened together to be looked at.
const WIDENED_AT_ONCE: usize = 1 << 20;

/// Whole chunks first, without an early exit, so that the check runs as fast as memory does.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    let damaged = |chunk: &[f32]| {
        chunk
            .iter()
            .fold(false, |any, value| any | !value.is_finite())
    };
    if !values.par_chunks(1 << 14).any(damaged) {
        return None;
    }
    values.iter().position(|value| !value.is_finite())
}

#[cfg(test)]
pub(crate) mod tests;
