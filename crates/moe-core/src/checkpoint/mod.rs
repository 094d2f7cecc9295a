//! Weights, settings and tokenizer of a base model, from a Hugging Face folder or a GGUF file.
//!
//! Files come from strangers. Every size is checked against the length of the file before memory
//! is asked for, and every shape against the model's settings before a weight is read.

mod check;
mod fingerprint;
mod folder;
pub mod gguf;
pub(crate) mod pointer;
mod positioned;
pub mod safetensors;
mod special;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use self::gguf::{GgufModel, GgufTokenizer};
use self::safetensors::Sharded;
pub use self::special::AnswerEnds;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

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
    named: special::Named,
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
    /// A `tokenizer.json` beside a GGUF file, whose own vocabulary, where it has one, has to be the same.
    Beside(PathBuf, Option<GgufTokenizer>),
}

impl Checkpoint {
    /// Opens a Hugging Face folder (`config.json` with `model.safetensors` or
    /// `model.safetensors.index.json`), a `.gguf` file, or a folder that holds exactly one.
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
        Ok(Self {
            path: path.to_path_buf(),
            config: model.config().clone(),
            tokenizer: gguf_tokenizer(path, &model)?,
            named: special::Named::default(),
            chat_template: model.chat_template()?.map(str::to_owned),
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
        let message = format!(
            "element {index} is {}, not a finite number; the checkpoint is damaged",
            values[index]
        );
        Err(Error::tensor(&self.path, name, message))
    }

    /// Tokens that the tokenizer has besides those of its own file.
    pub(crate) fn added_tokens(&self) -> &[crate::tokenizer::AddedToken] {
        &self.named.added
    }

    /// Control tokens by their role (`eos_token`), as the files beside the tokenizer name them.
    pub(crate) fn token_roles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.roles()
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

/// The file's own, which a `tokenizer.json` beside it takes the place of where it is of a kind that is not known here, or not there.
fn gguf_tokenizer(path: &Path, model: &GgufModel) -> Result<Option<TokenizerSource>> {
    let beside = path.with_file_name("tokenizer.json");
    let own = model.tokenizer()?;
    let usable = own.as_ref().is_some_and(|own| own.to_json().is_ok());
    Ok(match (usable, beside.is_file()) {
        (false, true) => Some(TokenizerSource::Beside(beside, own)),
        _ => own.map(TokenizerSource::Gguf),
    })
}

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
mod tests;
