//! Settings as a `config.json` that transformers reads too, versions 4 and 5.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Architecture, ModelConfig, RopeScaling};
use crate::error::{Error, Result};

impl ModelConfig {
    /// The text of a `config.json` that [`ModelConfig::from_json`] reads as these settings. `dtype` is what transformers calls the
    /// numbers (`float32`, `bfloat16`), `path` the file named in errors.
    ///
    /// # Errors
    /// [`Error::Config`] when the settings are of no architecture that such a file can name: rotary divisors of a GGUF file, biases
    /// where the architecture has none.
    pub fn to_json(&self, dtype: &str, path: &Path) -> Result<String> {
        let (kind, class) = names(self.architecture);
        let mut keys = Map::new();
        let mut put = |key: &str, value: Value| keys.insert(key.into(), value);
        put("architectures", json!([class]));
        put("model_type", json!(kind));
        put("torch_dtype", json!(dtype));
        put("vocab_size", json!(self.vocab_size));
        put("hidden_size", json!(self.d_model));
        put("intermediate_size", json!(self.d_ff));
        put("num_hidden_layers", json!(self.num_layers));
        put("num_attention_heads", json!(self.num_heads));
        put("num_key_value_heads", json!(self.num_kv_heads));
        put("head_dim", json!(self.head_dim));
        put("hidden_act", json!("silu"));
        put("rms_norm_eps", json!(self.rms_norm_eps));
        put(
            "max_position_embeddings",
            json!(self.max_position_embeddings),
        );
        put("tie_word_embeddings", json!(self.tie_word_embeddings));
        put("rope_theta", json!(self.rope_theta));
        put("rope_scaling", scaling(&self.rope_scaling, path)?);
        for (key, token) in [
            ("bos_token_id", self.bos_token_id),
            ("pad_token_id", self.pad_token_id),
        ] {
            put(key, json!(token));
        }
        let ends = match &self.eos_token_ids[..] {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        put("eos_token_id", ends);
        self.put_window(&mut put);
        self.put_mixture(&mut put);
        let text = serde_json::to_string_pretty(&keys).expect("keys and plain values");
        match Self::from_json(&text, path)? == *self {
            true => Ok(text),
            false => Err(Error::config(
                path,
                "model_type",
                format!(
                    "no `{kind}` has all of these settings, so that they cannot be written as a config.json: {self:?}"
                ),
            )),
        }
    }

    fn put_window(&self, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
        match self.architecture {
            Architecture::Llama | Architecture::Olmoe => {}
            Architecture::Mistral | Architecture::Mixtral => {
                put("sliding_window", json!(self.sliding_window));
            }
            Architecture::Qwen2
            | Architecture::Qwen3
            | Architecture::Qwen2Moe
            | Architecture::Qwen3Moe => {
                put("use_sliding_window", json!(self.sliding_window.is_some()));
                put("sliding_window", json!(self.sliding_window));
                if self.sliding_window.is_some() {
                    put("max_window_layers", json!(0));
                    let types = vec!["sliding_attention"; self.num_layers];
                    put("layer_types", json!(types));
                }
            }
        }
    }

    fn put_mixture(&self, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
        let Some(sparse) = &self.sparse else { return };
        let experts = match self.architecture {
            Architecture::Mixtral => "num_local_experts",
            _ => "num_experts",
        };
        put(experts, json!(sparse.num_experts));
        put("num_experts_per_tok", json!(sparse.top_k));
        if self.architecture != Architecture::Mixtral {
            put("norm_topk_prob", json!(sparse.norm_topk_prob));
        }
        if let Architecture::Qwen2Moe | Architecture::Qwen3Moe = self.architecture {
            put("moe_intermediate_size", json!(sparse.d_ff));
            put("decoder_sparse_step", json!(sparse.step));
            put("mlp_only_layers", json!(sparse.dense_layers));
        }
        if self.architecture == Architecture::Qwen2Moe {
            put("shared_expert_intermediate_size", json!(sparse.shared_d_ff));
            put("qkv_bias", json!(self.attention_bias));
        }
    }
}

/// `model_type`, and the class in transformers.
fn names(architecture: Architecture) -> (&'static str, &'static str) {
    match architecture {
        Architecture::Llama => ("llama", "LlamaForCausalLM"),
        Architecture::Mistral => ("mistral", "MistralForCausalLM"),
        Architecture::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        Architecture::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        Architecture::Mixtral => ("mixtral", "MixtralForCausalLM"),
        Architecture::Qwen2Moe => ("qwen2_moe", "Qwen2MoeForCausalLM"),
        Architecture::Qwen3Moe => ("qwen3_moe", "Qwen3MoeForCausalLM"),
        Architecture::Olmoe => ("olmoe", "OlmoeForCausalLM"),
    }
}

fn scaling(scaling: &RopeScaling, path: &Path) -> Result<Value> {
    match scaling {
        RopeScaling::None => Ok(Value::Null),
        RopeScaling::Linear { factor } => Ok(json!({"rope_type": "linear", "factor": factor})),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => Ok(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        })),
        RopeScaling::Divisors(_) => Err(Error::config(
            path,
            "rope_scaling",
            "the base is a GGUF file with a divisor for every rotary frequency, which a config.json cannot say; take the base as its \
             Hugging Face folder",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::super::{ExpertNames, QkNorm, SparseConfig};
    use super::*;

    fn sparse(names: ExpertNames, shared_d_ff: Option<usize>) -> Option<SparseConfig> {
        Some(SparseConfig {
            names,
            num_experts: 3,
            top_k: 2,
            d_ff: 6,
            norm_topk_prob: true,
            shared_d_ff,
            step: 1,
            dense_layers: vec![],
        })
    }

    #[test]
    fn settings_of_every_architecture_read_back_or_are_refused() {
        use Architecture::*;
        for architecture in [
            Llama, Mistral, Qwen2, Qwen3, Mixtral, Qwen2Moe, Qwen3Moe, Olmoe,
        ] {
            let mut config = ModelConfig {
                architecture,
                qk_norm: QkNorm::of(architecture),
                attention_bias: matches!(architecture, Qwen2 | Qwen2Moe),
                eos_token_ids: vec![1, 2],
                pad_token_id: Some(3),
                sparse: match architecture {
                    Mixtral => sparse(ExpertNames::Mixtral, None),
                    Qwen2Moe => sparse(ExpertNames::Qwen, Some(1)),
                    Qwen3Moe | Olmoe => sparse(ExpertNames::Qwen, None),
                    _ => None,
                },
                ..tiny()
            };
            if let (Qwen2Moe | Qwen3Moe, Some(sparse)) = (architecture, &mut config.sparse) {
                (sparse.dense_layers, sparse.d_ff) = (vec![0], 5);
            }
            if !matches!(architecture, Llama | Olmoe) {
                config.sliding_window = Some(7);
            }
            config.rope_scaling = RopeScaling::Linear { factor: 2.0 };
            let path = Path::new("config.json");
            let text = config.to_json("float32", path).unwrap();
            assert_eq!(ModelConfig::from_json(&text, path).unwrap(), config);
            config.sliding_window = None;
            config.to_json("float32", path).unwrap();
            config.attention_bias = !config.attention_bias;
            let refused = config.to_json("float32", path);
            assert_eq!(refused.is_err(), architecture != Qwen2Moe);
            config.rope_scaling = RopeScaling::Divisors(vec![1.0]);
            let message = config.to_json("float32", path).unwrap_err().to_string();
            assert!(message.contains("`rope_scaling`"), "{message}");
        }
    }
}
