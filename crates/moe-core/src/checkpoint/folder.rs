//! The files of a Hugging Face checkpoint folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::named::Named;
use super::safetensors::Sharded;
use super::{Checkpoint, TokenizerSource, Weights, pointer};
use crate::config::{ModelConfig, json};
use crate::error::{Error, Result};
use crate::plain_file;

/// Settings are kilobytes, chat templates too; anything larger is not what its name says.
const MAX_TEXT: u64 = 16 << 20;

/// Opens `dir`, which holds either one `.gguf` file or a Hugging Face checkpoint.
pub(super) fn open(dir: &Path) -> Result<Checkpoint> {
    let config = dir.join("config.json");
    if !config.exists() {
        return Checkpoint::open_file(&only_gguf(dir)?);
    }
    let mut config = ModelConfig::from_json(&read_text(&config)?, &config)?;
    let generation = dir.join("generation_config.json");
    if generation.exists() {
        json::generation(&read_text(&generation)?, &generation, &mut config)?;
    }
    let beside = Beside::read(dir)?;
    let mut checkpoint = Checkpoint {
        path: dir.to_path_buf(),
        config,
        weights: Weights::Safetensors(Sharded::open(dir)?),
        named: beside.named,
        tokenizer: beside.tokenizer.map(TokenizerSource::File),
        chat_template: beside.chat_template,
    };
    // A head that is stored beside the embedding and differs from it is the model's, whatever the flag says.
    if checkpoint.config.tie_word_embeddings && stored_head(&checkpoint)? {
        checkpoint.config.tie_word_embeddings = false;
    }
    Ok(checkpoint)
}

/// A tokenizer and what is said of it in the files beside it.
pub(super) struct Beside {
    pub(super) tokenizer: Option<PathBuf>,
    pub(super) named: Named,
    pub(super) chat_template: Option<String>,
}

impl Beside {
    /// What `dir` holds of it.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let tokenizer = dir.join("tokenizer.json");
        Ok(Self {
            tokenizer: tokenizer.exists().then_some(tokenizer),
            named: Named::read(dir)?,
            chat_template: chat_template(dir)?,
        })
    }
}

fn stored_head(checkpoint: &Checkpoint) -> Result<bool> {
    let (head, embedding) = ("lm_head.weight", "model.embed_tokens.weight");
    if checkpoint.shape(head).is_none() || checkpoint.shape(embedding).is_none() {
        return Ok(false);
    }
    Ok(checkpoint.read_f32(head)? != checkpoint.read_f32(embedding)?)
}

fn only_gguf(dir: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            files.push(path);
        }
    }
    match files.len() {
        1 => Ok(files.remove(0)),
        0 => Err(Error::file(
            dir,
            "no config.json and no .gguf file; expected the folder of a Hugging Face checkpoint",
        )),
        more => Err(Error::file(
            dir,
            format!("{more} .gguf files and no config.json; name the one to open"),
        )),
    }
}

/// `chat_template.jinja` if there is one, else the key in `tokenizer_config.json`.
pub(super) fn chat_template(dir: &Path) -> Result<Option<String>> {
    let file = dir.join("chat_template.jinja");
    if file.exists() {
        return read_text(&file).map(Some);
    }
    let file = dir.join("tokenizer_config.json");
    if !file.exists() {
        return Ok(None);
    }
    let config: Value = serde_json::from_str(&read_text(&file)?)
        .map_err(|error| Error::file(&file, format!("not valid JSON: {error}")))?;
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(template)) => Ok(Some(template.clone())),
        Some(Value::Array(named)) => Ok(named
            .iter()
            .find(|entry| entry["name"] == "default")
            .and_then(|entry| entry["template"].as_str())
            .map(str::to_owned)),
        Some(_) => {
            let message = "expected a string or a list of named templates";
            Err(Error::config(&file, "chat_template", message))
        }
    }
}

/// A small text file, refused by its size before it is read.
pub(super) fn read_text(path: &Path) -> Result<String> {
    pointer::refuse(path)?;
    let bytes = plain_file::read(path, MAX_TEXT).map_err(Error::io(path))?;
    String::from_utf8(bytes).map_err(|_| Error::file(path, "expected UTF-8 text"))
}
