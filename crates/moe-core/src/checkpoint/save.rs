//! A model written as a Hugging Face folder.

use std::fs;
use std::path::Path;

use serde_json::{Map, json};

use super::safetensors::write;
use super::{Checkpoint, TokenizerSource, Weights, folder};
use crate::atomic;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::BaseDtype;

/// What a tokenizer's folder may hold of it.
const BESIDE: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Writes a model with `config` as the new folder `to`: `config.json`, `model.safetensors` and the tokenizer of `base`, the one whose
/// file is a GGUF file as a `tokenizer.json`. Matrices are in `dtype`, norms and biases in f32; `read` is asked for every tensor of
/// [`ModelConfig::parameter_shapes`] once, and one is in memory at a time.
///
/// The folder appears whole or not at all.
///
/// # Errors
/// When `to` exists or cannot be written, `config` has settings that no such file can say, or `read` fails.
pub fn save_folder(
    to: &Path,
    config: &ModelConfig,
    dtype: BaseDtype,
    base: &Checkpoint,
    read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
) -> Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        let message = "exists already, and is not written over; name a folder that does not";
        return Err(Error::file(to, message));
    }
    let (name, matrices) = match dtype {
        BaseDtype::F32 | BaseDtype::Stored => ("float32", ::safetensors::Dtype::F32),
        BaseDtype::Bf16 => ("bfloat16", ::safetensors::Dtype::BF16),
    };
    let settings = config.to_json(name, &to.join("config.json"))?;
    let tensors = config
        .parameter_shapes()
        .into_iter()
        .map(|(name, shape)| match shape.len() {
            2 => (name, shape, matrices),
            _ => (name, shape, ::safetensors::Dtype::F32),
        });
    let tensors = tensors.collect();
    let fill = |dir: &Path| {
        let config = dir.join("config.json");
        fs::write(&config, settings).map_err(Error::io(&config))?;
        base.save_tokenizer(dir)?;
        write(&dir.join("model.safetensors"), tensors, read)
    };
    atomic::replace_dir(to, |dir| fill(dir).map_err(std::io::Error::other))
        .map_err(|error| error.downcast().unwrap_or_else(Error::io(to)))
}

impl Checkpoint {
    /// Writes the tokenizer and what is said of it into `dir`; nothing where there is none.
    fn save_tokenizer(&self, dir: &Path) -> Result<()> {
        match &self.tokenizer {
            None => {}
            Some(TokenizerSource::File(file)) => {
                let from = file.parent().unwrap_or(Path::new(""));
                // Beside a GGUF file nobody reads it.
                let generation = matches!(self.weights, Weights::Safetensors(_));
                let generation = generation.then_some("generation_config.json");
                for name in BESIDE.into_iter().chain(generation) {
                    let from = from.join(name);
                    if from.exists() {
                        fs::copy(&from, dir.join(name)).map_err(Error::io(&from))?;
                    }
                }
            }
            Some(TokenizerSource::Gguf(_)) => self.write_tokenizer(dir)?,
        }
        let template = self.chat_template.as_deref();
        if let Some(template) = template
            && folder::chat_template(dir)?.as_deref() != Some(template)
        {
            let file = dir.join("chat_template.jinja");
            fs::write(&file, template).map_err(Error::io(&file))?;
        }
        Ok(())
    }

    fn write_tokenizer(&self, dir: &Path) -> Result<()> {
        let tokenizer = self.tokenizer()?;
        let file = dir.join("tokenizer.json");
        fs::write(&file, tokenizer.to_json()?).map_err(Error::io(&file))?;
        let special = self.special_tokens(&tokenizer);
        let mut settings = Map::new();
        settings.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        settings.insert("clean_up_tokenization_spaces".into(), json!(false));
        for (key, token) in [
            ("bos_token", special.bos),
            ("eos_token", special.eos),
            ("pad_token", special.pad),
            ("unk_token", special.unk),
        ] {
            if let Some(token) = token {
                settings.insert(key.into(), json!(token));
            }
        }
        let text = serde_json::to_string_pretty(&settings).expect("keys and texts");
        let file = dir.join("tokenizer_config.json");
        fs::write(&file, text).map_err(Error::io(&file))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::tests::zeros;
    use super::*;
    use crate::config::{Architecture, ExpertNames, QkNorm, SparseConfig};
    use crate::model::Decoder;
    use crate::model::tests::tiny;
    use crate::parameters::to_bytes;

    fn config(architecture: Architecture) -> ModelConfig {
        use Architecture::*;
        let names = match architecture {
            Mixtral => ExpertNames::Mixtral,
            _ => ExpertNames::Qwen,
        };
        let mixture = SparseConfig {
            names,
            num_experts: 3,
            top_k: 2,
            d_ff: 24,
            norm_topk_prob: true,
            shared_d_ff: (architecture == Qwen2Moe).then_some(5),
            step: 1,
            dense_layers: vec![],
        };
        ModelConfig {
            architecture,
            qk_norm: QkNorm::of(architecture),
            attention_bias: matches!(architecture, Qwen2 | Qwen2Moe),
            tie_word_embeddings: architecture == Mistral,
            sparse: match architecture {
                Llama | Mistral | Qwen2 | Qwen3 => None,
                Mixtral | Olmoe => Some(mixture),
                Qwen2Moe | Qwen3Moe => Some(SparseConfig {
                    d_ff: 7,
                    step: 2,
                    ..mixture
                }),
            },
            ..tiny()
        }
    }

    #[test]
    fn what_was_saved_is_loaded_to_the_bit_in_every_architecture() {
        use Architecture::*;
        let device = Device::flex();
        for architecture in [
            Llama, Mistral, Qwen2, Qwen3, Mixtral, Qwen2Moe, Qwen3Moe, Olmoe,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let base = zeros(&dir.path().join("zeros"));
            for dtype in [BaseDtype::F32, BaseDtype::Bf16] {
                let model = Decoder::random(&config(architecture), 2, &device).with_dtype(dtype);
                let to = dir.path().join(dtype.to_string());
                model.save(&to, &base).unwrap();
                let saved = Checkpoint::open(&to).unwrap();
                assert_eq!(saved.config(), model.config());
                let loaded = Decoder::load_as(&saved, dtype, &device).unwrap();
                assert_eq!(to_bytes(&loaded), to_bytes(&model), "{architecture:?}");
            }
        }
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all_and_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let base = zeros(&dir.path().join("zeros"));
        let to = dir.path().join("model");
        let save = |read: &dyn Fn(&str) -> Result<Vec<f32>>| {
            save_folder(&to, base.config(), BaseDtype::F32, &base, |name, _| {
                read(name)
            })
        };
        let failed = save(&|name| match name {
            "model.norm.weight" => Err(Error::tensor(&to, name, "gone")),
            _ => base.read_f32(name),
        });
        assert!(failed.unwrap_err().to_string().contains("gone"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        save(&|name| base.read_f32(name)).unwrap();
        let message = save(&|name| base.read_f32(name)).unwrap_err().to_string();
        assert!(message.contains("exists already"), "{message}");
    }
}
