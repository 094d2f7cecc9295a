//! Text to token ids and back, from a `tokenizer.json` or from the metadata of a GGUF file.

mod gguf;

use std::path::Path;

use crate::checkpoint::gguf::GgufTokenizer;
use crate::checkpoint::{Checkpoint, TokenizerSource};
use crate::error::{Error, Result};

/// A tokenizer of the Hugging Face `tokenizers` library.
///
/// Special tokens written out in a text are recognised as such; nothing is truncated or padded.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// The file cannot be read or does not describe a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::from_json(&bytes)
            .map_err(|error| Error::Tokenizer(format!("{}: {error}", path.display())))
    }

    /// From the content of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// It does not describe a tokenizer.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(failed)?;
        inner.with_truncation(None).map_err(failed)?;
        inner.with_padding(None);
        Ok(Self { inner })
    }

    /// From the metadata of a GGUF file.
    ///
    /// # Errors
    ///
    /// The tokenizer's kind or its pre-tokenizer is not known here, or its parts contradict each
    /// other.
    pub fn from_gguf(vocabulary: &GgufTokenizer) -> Result<Self> {
        Self::from_json(&serde_json::to_vec(&vocabulary.to_json()?).map_err(failed)?)
    }

    /// Token ids of `text`; `add_special` puts the begin and end tokens around it that the
    /// tokenizer asks for (many ask for none).
    ///
    /// # Errors
    ///
    /// The text holds a character for which the tokenizer has neither token nor fallback.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `tokens`; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    ///
    /// The tokenizer's decoder refuses the sequence.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(tokens, skip_special).map_err(failed)
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Id of a token by its exact spelling.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Spelling of a token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

impl Checkpoint {
    /// The tokenizer that came with the weights.
    ///
    /// # Errors
    ///
    /// There is none, or it is of a kind that is not supported.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match self.tokenizer_source()? {
            TokenizerSource::File(path) => Tokenizer::from_file(&path),
            TokenizerSource::Gguf(vocabulary) => Tokenizer::from_gguf(&vocabulary),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer(error.to_string())
}
