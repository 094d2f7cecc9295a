//! The mixture's settings in a `config.json`.

use super::keys::Keys;
use super::{Architecture, ExpertNames, SparseConfig};
use crate::error::Result;

/// Settings of mixtures that this crate does not compute: none of them can be ignored.
const NOT_UNDERSTOOD: [&str; 12] = [
    "clip_qkv",
    "expert_capacity",
    "first_k_dense_replace",
    "moe_layer_freq",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "num_shared_experts",
    "routed_scaling_factor",
    "scoring_func",
    "topk_group",
    "topk_method",
];

/// The mixture of a sparse architecture, whose dense layers have `d_ff`; none of a dense one.
pub(super) fn read(
    keys: &Keys,
    architecture: Architecture,
    d_ff: usize,
) -> Result<Option<SparseConfig>> {
    let names = match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
            return Ok(None);
        }
        Architecture::Mixtral => ExpertNames::Mixtral,
        Architecture::Qwen2Moe | Architecture::Qwen3Moe | Architecture::Olmoe => ExpertNames::Qwen,
    };
    let said = |key: &&&str| keys.map.get(**key).is_some_and(|value| !value.is_null());
    if let Some(key) = NOT_UNDERSTOOD.iter().find(said) {
        let message = "mixtures with this setting are not supported; it cannot be ignored safely";
        return Err(keys.error(key, message));
    }
    // The Qwen families have layers of both kinds, with widths of their own.
    let (expert_d_ff, step, dense_layers) = match architecture {
        Architecture::Qwen2Moe | Architecture::Qwen3Moe => (
            keys.required_usize("moe_intermediate_size")?,
            keys.usize("decoder_sparse_step")?.unwrap_or(1),
            keys.usizes("mlp_only_layers")?,
        ),
        _ => (d_ff, 1, Vec::new()),
    };
    Ok(Some(SparseConfig {
        names,
        num_experts: num_experts(keys)?,
        top_k: keys.required_usize("num_experts_per_tok")?,
        d_ff: expert_d_ff,
        norm_topk_prob: match architecture {
            Architecture::Mixtral => true,
            _ => keys.bool("norm_topk_prob")?.unwrap_or(false),
        },
        shared_d_ff: match architecture {
            Architecture::Qwen2Moe => Some(keys.required_usize("shared_expert_intermediate_size")?),
            _ => None,
        },
        step,
        dense_layers,
    }))
}

/// Under either of its two names.
fn num_experts(keys: &Keys) -> Result<usize> {
    match (keys.usize("num_local_experts")?, keys.usize("num_experts")?) {
        (Some(one), Some(other)) if one != other => {
            let message = format!("{other} here and {one} under `num_local_experts`");
            Err(keys.error("num_experts", message))
        }
        (Some(experts), _) | (None, Some(experts)) => Ok(experts),
        (None, None) => Err(keys.missing("num_experts")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{ModelConfig, QkNorm};

    fn with(kind: &str, changes: Value) -> Result<ModelConfig> {
        let mut config = json!({
            "model_type": kind, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 256, "num_experts": 8, "num_experts_per_tok": 2,
            "moe_intermediate_size": 20, "shared_expert_intermediate_size": 36,
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        ModelConfig::from_json(&config.to_string(), Path::new("config.json"))
    }

    fn mixture(kind: &str, changes: Value) -> SparseConfig {
        with(kind, changes).unwrap().sparse.unwrap()
    }

    #[test]
    fn each_family_has_its_own_mixture() {
        let mixtral = mixture("mixtral", json!({}));
        assert_eq!((mixtral.d_ff, mixtral.norm_topk_prob), (48, true));
        assert_eq!(mixtral.names, ExpertNames::Mixtral);
        let qwen2 = mixture("qwen2_moe", json!({}));
        assert_eq!((qwen2.d_ff, qwen2.norm_topk_prob), (20, false));
        assert_eq!(qwen2.shared_d_ff, Some(36));
        let both =
            json!({"decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": true});
        let qwen3 = mixture("qwen3_moe", both);
        assert_eq!((qwen3.step, &qwen3.dense_layers[..]), (2, &[3][..]));
        assert_eq!((qwen3.shared_d_ff, qwen3.norm_topk_prob), (None, true));
        let olmoe = with("olmoe", json!({"num_key_value_heads": null})).unwrap();
        assert_eq!(olmoe.qk_norm, QkNorm::Projection);
        assert_eq!(olmoe.num_kv_heads, 4);
        assert_eq!(olmoe.sparse.unwrap().d_ff, 48);
        assert_eq!(with("qwen3", json!({})).unwrap().sparse, None);
    }

    #[test]
    fn biases_are_as_the_settings_say() {
        let bias = |changes| with("qwen2_moe", changes).unwrap().attention_bias;
        assert!(bias(json!({})));
        assert!(!bias(json!({"qkv_bias": false})));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_key() {
        let refused = |kind: &str, changes: Value, key: &str| {
            let message = with(kind, changes).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        };
        refused("deepseek_v3", json!({}), "model_type");
        refused("olmoe", json!({"clip_qkv": 8.0}), "clip_qkv");
        refused("qwen3_moe", json!({"n_group": 4}), "n_group");
        refused("qwen3_moe", json!({"num_experts": null}), "num_experts");
        refused("mixtral", json!({"num_local_experts": 4}), "num_experts");
        refused(
            "mixtral",
            json!({"num_experts_per_tok": 9}),
            "num_experts_per_tok",
        );
        refused(
            "qwen2_moe",
            json!({"mlp_only_layers": [-1]}),
            "mlp_only_layers",
        );
        let none = json!({"moe_intermediate_size": null});
        refused("qwen2_moe", none, "moe_intermediate_size");
    }
}
