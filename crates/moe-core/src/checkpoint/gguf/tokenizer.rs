//! The vocabulary a GGUF file carries.

use super::GgufFile;
use crate::error::{Error, Result};

/// `tokenizer.ggml.*`, uninterpreted; `moe_core::tokenizer` builds a tokenizer from it.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTokenizer {
    /// `gpt2` for byte-level BPE, `llama` for SentencePiece.
    pub model: String,
    /// Name of the pre-tokenizer (`llama-bpe`, `smollm`, `qwen2`, …).
    pub pre: Option<String>,
    /// The text of every token, by id.
    pub tokens: Vec<String>,
    /// Score of every token; SentencePiece merges the best first.
    pub scores: Option<Vec<f32>>,
    /// Kind of every token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i32>>,
    /// BPE merges, best first, as `left right`.
    pub merges: Vec<String>,
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Token that ends a text.
    pub eos: Option<u32>,
    /// Token for what the vocabulary cannot spell.
    pub unknown: Option<u32>,
    /// Token that fills a batch up.
    pub padding: Option<u32>,
    /// Put `bos` in front of a text.
    pub add_bos: Option<bool>,
    /// Put `eos` behind a text.
    pub add_eos: Option<bool>,
    /// SentencePiece: put a space in front of a text.
    pub add_space_prefix: Option<bool>,
}

/// `None` when the file carries no vocabulary.
pub(super) fn read(file: &GgufFile) -> Result<Option<GgufTokenizer>> {
    let (metadata, path) = (file.metadata(), file.path());
    let key = |key: &str| format!("tokenizer.ggml.{key}");
    let Some(tokens) = metadata.strings(path, &key("tokens"))? else {
        return Ok(None);
    };
    let per_token = |name: &str, found: Option<usize>| match found {
        Some(found) if found != tokens.len() => {
            let message = format!("{found} entries for {} tokens", tokens.len());
            Err(Error::config(path, key(name), message))
        }
        _ => Ok(()),
    };
    let scores = metadata.f32s(path, &key("scores"))?;
    let token_types = metadata.i32s(path, &key("token_type"))?;
    per_token("scores", scores.map(<[f32]>::len))?;
    per_token("token_type", token_types.map(<[i32]>::len))?;
    let id = |name: &str| {
        let key = key(name);
        match metadata.u32(path, &key)? {
            None | Some(u32::MAX) => Ok(None), // all ones stands for "none"
            Some(id) if (id as usize) < tokens.len() => Ok(Some(id)),
            Some(id) => {
                let message = format!("token {id} is not among the {} tokens", tokens.len());
                Err(Error::config(path, key, message))
            }
        }
    };
    let text = |name: &str| Ok::<_, Error>(metadata.str(path, &key(name))?.map(str::to_owned));
    let model = text("model")?.ok_or_else(|| {
        let message = "missing; expected `gpt2` or `llama`";
        Error::config(path, key("model"), message)
    })?;
    let merges = metadata.strings(path, &key("merges"))?.unwrap_or_default();
    Ok(Some(GgufTokenizer {
        model,
        pre: text("pre")?,
        tokens: tokens.to_vec(),
        scores: scores.map(<[f32]>::to_vec),
        token_types: token_types.map(<[i32]>::to_vec),
        merges: merges.to_vec(),
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        unknown: id("unknown_token_id")?,
        padding: id("padding_token_id")?,
        add_bos: metadata.bool(path, &key("add_bos_token"))?,
        add_eos: metadata.bool(path, &key("add_eos_token"))?,
        add_space_prefix: metadata.bool(path, &key("add_space_prefix"))?,
    }))
}
