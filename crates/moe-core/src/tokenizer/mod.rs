//! Text to token ids and back, from a `tokenizer.json` or from the metadata of a GGUF file.

mod gguf;
mod limits;
mod merges;
mod named;

use std::path::Path;

use sha2::{Digest, Sha256};

pub(crate) use named::{Matching, NamedToken};

use crate::checkpoint::gguf::GgufTokenizer;
use crate::checkpoint::{Checkpoint, TokenizerSource, pointer};
use crate::error::{Error, Result};
use crate::plain_file;

/// A tokenizer of the Hugging Face `tokenizers` library.
///
/// Nothing is truncated or padded.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same, but for special tokens written out, which are text to it.
    plain: tokenizers::Tokenizer,
    special: Vec<String>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// The file cannot be read or does not describe a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        pointer::refuse(path)?;
        let bytes = plain_file::read(path, limits::MAX_FILE).map_err(Error::io(path))?;
        Self::from_json(&bytes)
            .map_err(|error| Error::Tokenizer(format!("{}: {error}", path.display())))
    }

    /// From the content of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// It does not describe a tokenizer, or one beyond the limits of `docs/SECURITY.md`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        limits::check_json(json)?;
        let json = json.to_vec();
        limits::within_time("build the tokenizer", move || Self::built(&json))
    }

    fn built(json: &[u8]) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(failed)?;
        inner.with_truncation(None).map_err(failed)?;
        inner.with_padding(None);
        if let Some((token, id)) = largest(&inner).filter(|(_, id)| *id > limits::MAX_ID) {
            let most = limits::MAX_ID;
            return Err(failed(format!(
                "the token {token:?} has the id {id}; expected at most {most}"
            )));
        }
        let added = inner.get_added_tokens_decoder();
        let mut special: Vec<String> = added
            .into_values()
            .filter(|token| token.special && !token.content.is_empty())
            .map(|token| token.content)
            .collect();
        special.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        let mut plain = inner.clone();
        plain.set_encode_special_tokens(true);
        Ok(Self {
            inner,
            plain,
            special,
        })
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

    /// The first token whose id is `rows` or more.
    fn first_beyond(&self, rows: usize) -> Option<(u32, String)> {
        let vocabulary = self.inner.get_vocab(true);
        let beyond = vocabulary
            .into_iter()
            .filter(|(_, id)| *id as usize >= rows);
        beyond.map(|(token, id)| (id, token)).min()
    }

    /// SHA-256, in lower-case hexadecimal, of the tokenizer as `tokenizer.json` has it, written in one way: spaces, the order of
    /// the vocabulary and the settings of truncation and padding, which are not used, have no part in it.
    ///
    /// # Errors
    ///
    /// A part of it cannot be written as JSON.
    pub fn hash(&self) -> Result<String> {
        Ok(hex::encode(Sha256::digest(self.to_json()?)))
    }

    /// The content of a `tokenizer.json` that is read as this tokenizer.
    ///
    /// # Errors
    ///
    /// A part of it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(failed)
    }

    /// Token ids of `text`, in which special tokens written out are special tokens: for what a
    /// chat template wrote, never for what a user did. `add_special` puts the begin and end tokens
    /// around it that the tokenizer asks for (many ask for none).
    ///
    /// # Errors
    ///
    /// The text holds a character for which the tokenizer has neither token nor fallback.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        ids(&self.inner, text, add_special)
    }

    /// Token ids of a text from outside: as [`Self::encode`], but nothing in it becomes a special
    /// token, whatever it spells.
    ///
    /// # Errors
    ///
    /// As [`Self::encode`].
    pub fn encode_text(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        ids(&self.plain, text, add_special)
    }

    /// Spellings of the special tokens, longer ones first.
    pub fn special_tokens(&self) -> &[String] {
        &self.special
    }

    /// Whether a token is a special one.
    pub fn is_special(&self, id: u32) -> bool {
        self.token(id)
            .is_some_and(|token| self.special.contains(&token))
    }

    /// Text of `tokens`; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    ///
    /// The tokenizer's decoder refuses the sequence.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String> {
        limits::guarded("decode", || {
            self.inner.decode(tokens, skip_special).map_err(failed)
        })
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
        let tokenizer = match self.tokenizer_source()? {
            TokenizerSource::File(path) => {
                let tokenizer = Tokenizer::from_file(&path)?;
                self.check_same_model(&path, &tokenizer)?;
                tokenizer
            }
            TokenizerSource::Gguf(vocabulary) => Tokenizer::from_gguf(&vocabulary)?,
        };
        let rows = self.config().vocab_size;
        if let Some((id, token)) = tokenizer.first_beyond(rows) {
            let message = format!(
                "the tokenizer's token {token:?} has the id {id}, and the embedding has {rows} rows (vocab_size): the two are not of one model, or tokens were added without resizing it"
            );
            return Err(Error::file(self.path(), message));
        }
        // Many a model names padding for which its embedding has no row: nothing here needs that, as what is padded is masked.
        let (needed, spare): (Vec<_>, Vec<_>) = self
            .named_tokens()
            .iter()
            .cloned()
            .partition(NamedToken::is_needed);
        let mut tokenizer = tokenizer.with(&needed)?;
        if let Some((id, token)) = tokenizer.first_beyond(rows) {
            let message = format!(
                "tokenizer.json has no token {token:?}; added to it, as transformers does, it has the id {id}, and the embedding has {rows} rows (vocab_size): name a token that is there, or resize the embedding"
            );
            let named = needed.iter().find(|named| named.content == token);
            return Err(match named {
                Some(named) => named.refuse(message),
                None => Error::file(self.path(), message),
            });
        }
        for token in spare {
            let there = tokenizer.token_id(&token.content).is_some();
            if there || tokenizer.vocab_size() < rows {
                tokenizer = tokenizer.with(&[token])?;
            }
        }
        Ok(tokenizer)
    }

    /// Refuses a `tokenizer.json` beside a GGUF file that spells tokens otherwise than that file.
    fn check_same_model(&self, path: &Path, tokenizer: &Tokenizer) -> Result<()> {
        let vocabulary = self.stored_vocabulary()?;
        let Some(found) = vocabulary.and_then(|it| it.contradiction(tokenizer)) else {
            return Ok(());
        };
        let there = match found.there {
            Some(token) => format!("is {token:?}"),
            None => "is not there".into(),
        };
        let message = format!(
            "token {} {there}, and is {:?} in {}: the two are not of one model; put the model's own tokenizer.json there, or take this one away",
            found.id,
            found.here,
            self.path().display()
        );
        Err(Error::file(path, message))
    }
}

fn ids(inner: &tokenizers::Tokenizer, text: &str, add_special: bool) -> Result<Vec<u32>> {
    limits::guarded("encode a text", || {
        let encoding = inner.encode_fast(text, add_special).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    })
}

fn largest(inner: &tokenizers::Tokenizer) -> Option<(String, u32)> {
    let vocabulary = inner.get_vocab(true).into_iter();
    vocabulary.max_by_key(|(_, id)| *id)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(json: &str) -> String {
        Tokenizer::from_json(json.as_bytes())
            .unwrap()
            .hash()
            .unwrap()
    }

    #[test]
    fn an_id_that_nobody_can_count_to_is_refused() {
        let json = r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}}"#;
        let message = Tokenizer::from_json(json.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(message.contains("4294967295"), "{message}");
    }

    #[test]
    fn the_hash_is_of_the_tokens_and_not_of_how_they_are_written() {
        let one = hash(
            r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#,
        );
        let same = hash(
            r#"{"truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
                "model": {"vocab": {"b": 1, "a": 0}, "merges": [], "type": "BPE"}}"#,
        );
        let other = hash(r#"{"model": {"type": "BPE", "vocab": {"a": 1, "b": 0}, "merges": []}}"#);
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_eq!(one.len(), 64);
    }
}
