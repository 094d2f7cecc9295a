//! Text to token ids and back, from a `tokenizer.json` or from the metadata of a GGUF file.

mod gguf;
mod limits;

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::checkpoint::gguf::GgufTokenizer;
use crate::checkpoint::{Checkpoint, TokenizerSource, pointer};
use crate::error::{Error, Result};
use crate::plain_file;

/// A token that a tokenizer has besides those of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// Its spelling.
    pub content: String,
    /// Its id, where it is said.
    pub id: Option<u32>,
    /// Whether it is a control token.
    pub special: bool,
}

impl AddedToken {
    /// A control token, wherever it gets its id.
    pub fn control(content: impl Into<String>) -> Self {
        Self {
            content: content.into(),
            id: None,
            special: true,
        }
    }
}

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

    /// With those of the `added` tokens that it lacks, as transformers adds them. A token that is special to one of the two is special.
    ///
    /// # Errors
    ///
    /// A token would get another id than it says.
    fn with(mut self, added: &[AddedToken]) -> Result<Self> {
        let known: HashMap<String, bool> = (self.inner.get_added_tokens_decoder().into_values())
            .map(|token| (token.content, token.special))
            .collect();
        let lacks = |token: &&AddedToken| match known.get(&token.content) {
            Some(special) => token.special && !special,
            None => true,
        };
        let lacking: Vec<&AddedToken> = added.iter().filter(lacks).collect();
        if lacking.is_empty() {
            return Ok(self);
        }
        // All at once: the library builds its search anew for every call.
        let new = (lacking.iter())
            .map(|token| tokenizers::AddedToken::from(token.content.clone(), token.special));
        self.inner.add_tokens(new).map_err(failed)?;
        for token in &lacking {
            let got = self.inner.token_to_id(&token.content);
            if token.id.is_some() && got != token.id {
                return Err(failed(format!(
                    "the added token {:?} is to have the id {:?}, and it has or would get {got:?}",
                    token.content, token.id
                )));
            }
        }
        // What is there already keeps its attributes when it is added again.
        let text = self.inner.to_string(false).map_err(failed)?;
        let mut json: Value = serde_json::from_str(&text).map_err(failed)?;
        for entry in json["added_tokens"].as_array_mut().into_iter().flatten() {
            let is = |token: &&AddedToken| entry["content"] == token.content.as_str();
            if lacking
                .iter()
                .copied()
                .any(|token| token.special && is(&token))
            {
                entry["special"] = true.into();
            }
        }
        Self::from_json(json.to_string().as_bytes())
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
        let json = self.inner.to_string(false).map_err(failed)?;
        Ok(hex::encode(Sha256::digest(json)))
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
            TokenizerSource::File(path) => Tokenizer::from_file(&path)?,
            TokenizerSource::Gguf(vocabulary) => Tokenizer::from_gguf(&vocabulary)?,
            TokenizerSource::Beside(path, own) => beside(&path, own.as_ref())?,
        };
        let named = |error| Error::file(self.path(), format!("{error}"));
        let tokenizer = tokenizer.with(self.added_tokens()).map_err(named)?;
        let tokenizer = self.with_roles(tokenizer).map_err(named)?;
        let rows = self.config().vocab_size;
        match tokenizer.first_beyond(rows) {
            None => Ok(tokenizer),
            Some((id, token)) => Err(Error::file(
                self.path(),
                format!(
                    "the tokenizer's token {token:?} has the id {id}, and the embedding has {rows} rows (vocab_size): the two are not of one model, or tokens were added without resizing it"
                ),
            )),
        }
    }
}

impl Checkpoint {
    /// With the control tokens that have a role (`eos_token`), for which the vocabulary may have no entry yet. One for which the embedding
    /// has no row is left out, as nothing needs it, but for what ends a text.
    fn with_roles(&self, mut tokenizer: Tokenizer) -> Result<Tokenizer> {
        let rows = self.config().vocab_size;
        for (role, token) in self.token_roles() {
            let there = tokenizer.token_id(token).is_some();
            if there || tokenizer.vocab_size() < rows {
                tokenizer = tokenizer.with(&[AddedToken::control(token)])?;
            } else if role == "eos_token" {
                return Err(failed(format!(
                    "the {role} is {token:?}, which is not in the vocabulary, and the embedding has no row for one more token"
                )));
            }
        }
        Ok(tokenizer)
    }
}

/// A `tokenizer.json` beside a GGUF file with the vocabulary `own`: the tokens have to be the same.
fn beside(path: &Path, own: Option<&GgufTokenizer>) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_file(path)?;
    let tokens = own.map_or(&[][..], |own| &own.tokens);
    for (id, token) in tokens.iter().enumerate() {
        let other = tokenizer.token(id as u32);
        if other.as_ref().is_some_and(|other| other != token) {
            return Err(Error::file(
                path,
                format!(
                    "token {id} is {:?} here and {token:?} in the GGUF file beside it: the two are of other models",
                    other.unwrap_or_default()
                ),
            ));
        }
    }
    Ok(tokenizer)
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
