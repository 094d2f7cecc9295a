//! A decoder's settings from GGUF metadata.

use super::metadata::{Array, Value};
use super::{GgufFile, sparse};
use crate::config::{Architecture, ModelConfig, QkNorm, RopeScaling};
use crate::error::{Error, Result};

/// Reads `{architecture}.*` and the special tokens.
pub(super) fn read(file: &GgufFile) -> Result<ModelConfig> {
    let keys = Keys::new(file)?;
    let path = file.path();
    keys.refuse_unsupported()?;
    let d_model = keys.required("embedding_length")?;
    let num_heads = keys.required("attention.head_count")?;
    if num_heads == 0 {
        return Err(keys.error("attention.head_count", "must be at least 1, found 0"));
    }
    let head_dim = keys.head_dim(d_model, num_heads)?;
    let d_ff = keys.required("feed_forward_length")?;
    let metadata = file.metadata();
    let token = |key: &str| {
        let key = format!("tokenizer.ggml.{key}_token_id");
        // All ones stands for "none".
        let id = metadata.u32(path, &key)?;
        Ok::<_, Error>(id.filter(|&id| id != u32::MAX))
    };
    let mut eos_token_ids: Vec<u32> = token("eos")?.into_iter().collect();
    eos_token_ids.extend(token("eot")?.filter(|id| !eos_token_ids.contains(id)));
    let config = ModelConfig {
        architecture: keys.architecture,
        vocab_size: keys.vocab_size()?,
        d_model,
        d_ff,
        num_layers: keys.required("block_count")?,
        num_heads,
        num_kv_heads: keys.usize("attention.head_count_kv")?.unwrap_or(num_heads),
        head_dim,
        rope_theta: keys.f64("rope.freq_base")?.unwrap_or(10000.0),
        rope_scaling: keys.rope_scaling()?,
        rms_norm_eps: keys.required_f64("attention.layer_norm_rms_epsilon")?,
        tie_word_embeddings: file.tensor("output.weight").is_none(),
        sliding_window: keys.usize("attention.sliding_window")?.filter(|&w| w != 0),
        attention_bias: match keys.architecture {
            Architecture::Qwen2 => true,
            Architecture::Qwen2Moe => file.tensor("blk.0.attn_q.bias").is_some(),
            _ => false,
        },
        qk_norm: QkNorm::of(keys.architecture),
        sparse: sparse::read(&keys, file, d_ff)?,
        max_position_embeddings: keys.required("context_length")?,
        bos_token_id: token("bos")?,
        eos_token_ids,
        pad_token_id: token("padding")?,
    };
    config.check(path).map_err(|error| keys.translate(error))?;
    Ok(config)
}

/// Typed look-ups below the architecture's prefix.
pub(super) struct Keys<'a> {
    file: &'a GgufFile,
    pub(super) architecture: Architecture,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    fn new(file: &'a GgufFile) -> Result<Self> {
        const KEY: &str = "general.architecture";
        const SUPPORTED: &str =
            "supported: llama (Mistral and Mixtral too), qwen2, qwen3, qwen2moe, qwen3moe, olmoe";
        let refuse = |message| Err(Error::config(file.path(), KEY, message));
        let prefix = file.metadata().str(file.path(), KEY)?;
        let architecture = match prefix {
            Some("llama") => Architecture::Llama,
            Some("qwen2") => Architecture::Qwen2,
            Some("qwen3") => Architecture::Qwen3,
            Some("qwen2moe") => Architecture::Qwen2Moe,
            Some("qwen3moe") => Architecture::Qwen3Moe,
            Some("olmoe") => Architecture::Olmoe,
            Some(other) => return refuse(format!("`{other}` is not supported ({SUPPORTED})")),
            None => return refuse(format!("missing ({SUPPORTED})")),
        };
        let mut keys = Self {
            file,
            architecture,
            prefix: prefix.unwrap_or_default(),
        };
        let experts = keys.usize("expert_count")?.unwrap_or(0);
        keys.architecture = match architecture {
            Architecture::Llama if experts > 0 => Architecture::Mixtral,
            Architecture::Qwen2 | Architecture::Qwen3 if experts > 0 => {
                let message = "a mixture of experts under the name of a dense architecture";
                return Err(keys.error("expert_count", message));
            }
            other => other,
        };
        Ok(keys)
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    pub(super) fn error(&self, key: &str, message: impl Into<String>) -> Error {
        Error::config(self.file.path(), self.key(key), message)
    }

    /// A number, or an array that repeats one number for every layer.
    pub(super) fn usize(&self, key: &str) -> Result<Option<usize>> {
        let full = self.key(key);
        let metadata = self.file.metadata();
        let same = |numbers: Option<Vec<usize>>| {
            let numbers = numbers?;
            let (first, rest) = numbers.split_first()?;
            rest.iter().all(|number| number == first).then_some(*first)
        };
        let first = match metadata.get(&full) {
            Some(Value::Array(Array::U32(items))) => {
                same(items.iter().map(|&n| n.try_into().ok()).collect())
            }
            Some(Value::Array(Array::I32(items))) => {
                same(items.iter().map(|&n| n.try_into().ok()).collect())
            }
            _ => return metadata.usize(self.file.path(), &full),
        };
        let message = "differs from layer to layer, which is not supported";
        first.map(Some).ok_or_else(|| self.error(key, message))
    }

    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.file.metadata().f64(self.file.path(), &self.key(key))
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.file.metadata().bool(self.file.path(), &self.key(key))
    }

    pub(super) fn required(&self, key: &str) -> Result<usize> {
        let missing = || self.error(key, "missing; the model cannot be built without it");
        self.usize(key)?.ok_or_else(missing)
    }

    fn required_f64(&self, key: &str) -> Result<f64> {
        let missing = || self.error(key, "missing; the model cannot be built without it");
        self.f64(key)?.ok_or_else(missing)
    }

    fn refuse_unsupported(&self) -> Result<()> {
        let metadata = self.file.metadata();
        match metadata.usize(self.file.path(), "split.count")? {
            Some(count) if count > 1 => Err(Error::config(
                self.file.path(),
                "split.count",
                format!("this is one of {count} parts; merge them with `llama-gguf-split --merge`"),
            )),
            _ => Ok(()),
        }
    }

    fn head_dim(&self, d_model: usize, num_heads: usize) -> Result<usize> {
        let head_dim = match self.usize("attention.key_length")? {
            Some(head_dim) => head_dim,
            None if d_model.is_multiple_of(num_heads) => d_model / num_heads,
            None => {
                let message = format!("{num_heads} heads do not divide embedding_length {d_model}");
                return Err(self.error("attention.head_count", message));
            }
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.usize(key)?.filter(|&other| other != head_dim) {
                let message = format!("{other} differs from the head size {head_dim}");
                return Err(self.error(key, format!("{message}, which is not supported")));
            }
        }
        Ok(head_dim)
    }

    /// The key, else the vocabulary, else the rows of the embedding.
    fn vocab_size(&self) -> Result<usize> {
        if let Some(size) = self.usize("vocab_size")? {
            return Ok(size);
        }
        let tokens = self
            .file
            .metadata()
            .strings(self.file.path(), "tokenizer.ggml.tokens")?;
        let rows = || {
            self.file
                .tensor("token_embd.weight")?
                .shape
                .first()
                .copied()
        };
        tokens
            .map(<[String]>::len)
            .or_else(rows)
            .ok_or_else(|| self.error("vocab_size", "missing, and there is no vocabulary"))
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        const TENSOR: &str = "rope_freqs.weight";
        let kind = self.key("rope.scaling.type");
        let kind = self.file.metadata().str(self.file.path(), &kind)?;
        let scaling = match kind {
            None => match self.f64("rope.scale_linear")? {
                Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
                _ => RopeScaling::None,
            },
            Some("none") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear {
                factor: self.required_f64("rope.scaling.factor")?,
            },
            Some(other) => {
                let message = format!("`{other}` is not supported (supported: none, linear)");
                return Err(self.error("rope.scaling.type", message));
            }
        };
        if self.file.tensor(TENSOR).is_none() {
            return Ok(scaling);
        }
        if scaling != RopeScaling::None {
            let message = "stands next to another rotary scaling, which is not supported";
            return Err(Error::tensor(self.file.path(), TENSOR, message));
        }
        let divisors = self.file.read_f32(TENSOR)?;
        Ok(RopeScaling::Divisors(
            divisors.into_iter().map(f64::from).collect(),
        ))
    }

    /// Names the GGUF key where [`ModelConfig::check`] named that of `config.json`.
    fn translate(&self, error: Error) -> Error {
        match error {
            Error::Config { path, key, message } => {
                let key = match key.as_str() {
                    "hidden_size" => self.key("embedding_length"),
                    "intermediate_size" => self.key("feed_forward_length"),
                    "num_hidden_layers" => self.key("block_count"),
                    "num_attention_heads" => self.key("attention.head_count"),
                    "num_key_value_heads" => self.key("attention.head_count_kv"),
                    "head_dim" => self.key("attention.key_length"),
                    "max_position_embeddings" => self.key("context_length"),
                    "rms_norm_eps" => self.key("attention.layer_norm_rms_epsilon"),
                    "rope_theta" => self.key("rope.freq_base"),
                    "num_experts" | "num_local_experts" => self.key("expert_count"),
                    "num_experts_per_tok" => self.key("expert_used_count"),
                    "moe_intermediate_size" => self.key("expert_feed_forward_length"),
                    "shared_expert_intermediate_size" => {
                        self.key("expert_shared_feed_forward_length")
                    }
                    "factor" => self.key("rope.scaling.factor"),
                    "bos_token_id" => "tokenizer.ggml.bos_token_id".into(),
                    "pad_token_id" => "tokenizer.ggml.padding_token_id".into(),
                    _ => key,
                };
                Error::Config { path, key, message }
            }
            other => other,
        }
    }
}
