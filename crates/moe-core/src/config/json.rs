//! `config.json` as transformers writes it, versions 4 and 5.

use std::path::Path;

use serde_json::Value;

use super::keys::{Keys, object};
use super::{Architecture, ModelConfig, QkNorm, RopeScaling, sparse_json};
use crate::error::Result;

const SUPPORTED: &str =
    "supported: llama, mistral, qwen2, qwen3, mixtral, qwen2_moe, qwen3_moe, olmoe";

pub(super) fn parse(text: &str, origin: &Path) -> Result<ModelConfig> {
    let map = object(text, origin)?;
    let keys = Keys::new(&map, origin);
    let architecture = architecture(&keys)?;
    refuse_unsupported(&keys)?;

    let d_model = keys.required_usize("hidden_size")?;
    let num_heads = keys.required_usize("num_attention_heads")?;
    let num_layers = keys.required_usize("num_hidden_layers")?;
    let num_kv_heads = match keys.usize("num_key_value_heads")? {
        Some(heads) => heads,
        None if matches!(architecture, Architecture::Llama | Architecture::Olmoe) => num_heads,
        None => return Err(keys.missing("num_key_value_heads")),
    };
    let (rope_theta, rope_scaling) = rope(&keys, architecture)?;
    let d_ff = keys.required_usize("intermediate_size")?;
    let config = ModelConfig {
        architecture,
        vocab_size: keys.required_usize("vocab_size")?,
        d_model,
        d_ff,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim: head_dim(&keys, architecture, d_model, num_heads)?,
        rope_theta,
        rope_scaling,
        rms_norm_eps: match (keys.f64("rms_norm_eps")?, architecture) {
            (Some(eps), _) => eps,
            (None, Architecture::Mixtral | Architecture::Olmoe) => 1e-5,
            (None, _) => 1e-6,
        },
        tie_word_embeddings: keys.bool("tie_word_embeddings")?.unwrap_or(false),
        sliding_window: sliding_window(&keys, architecture, num_layers)?,
        attention_bias: match architecture {
            Architecture::Qwen2 => true,
            Architecture::Qwen2Moe => keys.bool("qkv_bias")?.unwrap_or(true),
            _ => false,
        },
        qk_norm: QkNorm::of(architecture),
        sparse: sparse_json::read(&keys, architecture, d_ff)?,
        max_position_embeddings: keys.required_usize("max_position_embeddings")?,
        bos_token_id: keys.token("bos_token_id")?,
        eos_token_ids: keys.tokens("eos_token_id")?,
        pad_token_id: keys.token("pad_token_id")?,
    };
    config.check(origin)?;
    Ok(config)
}

/// The special tokens of a `generation_config.json`, added to those of the settings: chat models often stop at more tokens there. A
/// begin or padding token is taken where the settings have none.
pub(crate) fn generation(text: &str, origin: &Path, config: &mut ModelConfig) -> Result<()> {
    let map = object(text, origin)?;
    let keys = Keys::new(&map, origin);
    let said = ModelConfig {
        bos_token_id: keys.token("bos_token_id")?,
        eos_token_ids: keys.tokens("eos_token_id")?,
        pad_token_id: keys.token("pad_token_id")?,
        ..config.clone()
    };
    said.check(origin)?;
    config.bos_token_id = config.bos_token_id.or(said.bos_token_id);
    config.pad_token_id = config.pad_token_id.or(said.pad_token_id);
    for id in said.eos_token_ids {
        if !config.eos_token_ids.contains(&id) {
            config.eos_token_ids.push(id);
        }
    }
    Ok(())
}

fn architecture(keys: &Keys) -> Result<Architecture> {
    match keys.str("model_type")? {
        Some("llama") => Ok(Architecture::Llama),
        Some("mistral") => Ok(Architecture::Mistral),
        Some("qwen2") => Ok(Architecture::Qwen2),
        Some("qwen3") => Ok(Architecture::Qwen3),
        Some("mixtral") => Ok(Architecture::Mixtral),
        Some("qwen2_moe") => Ok(Architecture::Qwen2Moe),
        Some("qwen3_moe") => Ok(Architecture::Qwen3Moe),
        Some("olmoe") => Ok(Architecture::Olmoe),
        Some(other) => {
            let message = format!("`{other}` is not a supported model type ({SUPPORTED})");
            Err(keys.error("model_type", message))
        }
        None => Err(keys.error("model_type", format!("missing ({SUPPORTED})"))),
    }
}

/// Settings that would change the numbers the model computes.
fn refuse_unsupported(keys: &Keys) -> Result<()> {
    match keys.str("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => {
            let message = format!("activation `{other}` is not supported (supported: silu)");
            return Err(keys.error("hidden_act", message));
        }
    }
    for key in ["attention_bias", "mlp_bias"] {
        if keys.bool(key)?.unwrap_or(false) {
            return Err(keys.error(key, "checkpoints with these biases are not supported"));
        }
    }
    if keys
        .map
        .get("quantization_config")
        .is_some_and(|v| !v.is_null())
    {
        let message = "quantised safetensors are not supported; use the unquantised checkpoint or \
                       a GGUF file";
        return Err(keys.error("quantization_config", message));
    }
    whole_rotation(keys)
}

fn whole_rotation(keys: &Keys) -> Result<()> {
    match keys.f64("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => {
            let message = format!("only 1.0 (all of each head) is supported, found {factor}");
            Err(keys.error("partial_rotary_factor", message))
        }
        _ => Ok(()),
    }
}

fn head_dim(
    keys: &Keys,
    architecture: Architecture,
    d_model: usize,
    num_heads: usize,
) -> Result<usize> {
    if let Some(head_dim) = keys.usize("head_dim")? {
        return Ok(head_dim);
    }
    if architecture == Architecture::Qwen3 {
        return Ok(128); // the default of transformers' Qwen3Config
    }
    if num_heads == 0 {
        return Err(keys.error("num_attention_heads", "must be at least 1, found 0"));
    }
    if !d_model.is_multiple_of(num_heads) {
        let message = format!(
            "{num_heads} heads do not divide hidden_size = {d_model}; give `head_dim` if that is meant"
        );
        return Err(keys.error("num_attention_heads", message));
    }
    Ok(d_model / num_heads)
}

fn sliding_window(
    keys: &Keys,
    architecture: Architecture,
    num_layers: usize,
) -> Result<Option<usize>> {
    let window = keys.usize("sliding_window")?;
    match architecture {
        Architecture::Llama | Architecture::Olmoe => return Ok(None),
        Architecture::Mixtral => return Ok(window),
        Architecture::Mistral if keys.map.contains_key("sliding_window") => return Ok(window),
        Architecture::Mistral => return Ok(Some(4096)), // the default of transformers' MistralConfig
        Architecture::Qwen2
        | Architecture::Qwen3
        | Architecture::Qwen2Moe
        | Architecture::Qwen3Moe => {}
    }
    if !keys.bool("use_sliding_window")?.unwrap_or(false) || window.is_none() {
        return Ok(None);
    }
    let sliding = match keys.map.get("layer_types") {
        Some(Value::Array(types)) => {
            let sliding = |kind: &&Value| kind.as_str() == Some("sliding_attention");
            types.iter().filter(sliding).count()
        }
        // Without a list, layers from `max_window_layers` on slide.
        _ => num_layers.saturating_sub(keys.usize("max_window_layers")?.unwrap_or(28)),
    };
    match sliding {
        0 => Ok(None),
        all if all == num_layers => Ok(window),
        some => Err(keys.error(
            "sliding_window",
            format!("{some} of {num_layers} layers slide; only all or none is supported"),
        )),
    }
}

/// Base and scaling from `rope_parameters` (version 5) and `rope_theta` with `rope_scaling` (version 4). Where both are there, what either
/// says holds, and they must not contradict each other.
fn rope(keys: &Keys, architecture: Architecture) -> Result<(f64, RopeScaling)> {
    let mut theta = keys.f64("rope_theta")?;
    let mut scaling = RopeScaling::None;
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(section) = keys.section(name)? else {
            continue;
        };
        let own_scaling = rope_section(&section)?;
        let own_theta = section.f64("rope_theta")?;
        if let (Some(one), Some(other)) = (theta, own_theta)
            && one != other
        {
            let message = format!("{other} here and {one} elsewhere in the same file");
            return Err(section.error("rope_theta", message));
        }
        theta = theta.or(own_theta);
        if scaling != RopeScaling::None
            && own_scaling != RopeScaling::None
            && scaling != own_scaling
        {
            let message = "another scaling than in `rope_parameters`: one of them is wrong";
            return Err(section.error("rope_type", message));
        }
        if own_scaling != RopeScaling::None {
            scaling = own_scaling;
        }
    }
    let default = match architecture {
        Architecture::Mixtral => 1e6,
        _ => 1e4,
    };
    Ok((theta.unwrap_or(default), scaling))
}

fn rope_section(section: &Keys) -> Result<RopeScaling> {
    const KNOWN: &[&str] = &[
        "rope_theta",
        "rope_type",
        "type",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
        "partial_rotary_factor",
    ];
    if let Some(key) = section
        .map
        .keys()
        .find(|key| !KNOWN.contains(&key.as_str()))
    {
        return Err(section.error(key, "unknown rotary setting; it cannot be ignored safely"));
    }
    whole_rotation(section)?;
    let kind = match section.str("rope_type")? {
        Some(kind) => Some(kind),
        None => section.str("type")?,
    };
    match kind {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear {
            factor: section.required_f64("factor")?,
        }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: section.required_f64("factor")?,
            low_freq_factor: section.required_f64("low_freq_factor")?,
            high_freq_factor: section.required_f64("high_freq_factor")?,
            original_max_position_embeddings: section
                .required_usize("original_max_position_embeddings")?,
        }),
        Some(other) => {
            let message =
                format!("`{other}` is not supported (supported: default, linear, llama3)");
            Err(section.error("rope_type", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256,
            "hidden_act": "silu", "rms_norm_eps": 1e-5, "eos_token_id": [2, 3], "pad_token_id": -1,
        })
    }

    fn with(changes: Value) -> Result<ModelConfig> {
        let mut config = base();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        parse(&config.to_string(), Path::new("config.json"))
    }

    /// The error must name `key`.
    fn refused(changes: Value, key: &str) {
        let message = with(changes).unwrap_err().to_string();
        assert!(message.contains(&format!("{key}`")), "{message}");
    }

    #[test]
    fn both_styles_of_rotary_settings_mean_the_same() {
        let llama3 = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 200,
        });
        let old = with(json!({"rope_theta": 5e4, "rope_scaling": llama3})).unwrap();
        let mut inner = llama3.clone();
        inner["rope_theta"] = json!(5e4);
        let new = with(json!({"rope_parameters": inner})).unwrap();
        assert_eq!(old, new);
        assert_eq!(old.rope_theta, 5e4);
        let default = json!({"rope_type": "default", "rope_theta": 5e4});
        let both = json!({"rope_parameters": default, "rope_scaling": llama3});
        assert_eq!(with(both).unwrap(), old);
        let theta = json!({"rope_parameters": default, "rope_theta": 1e4});
        refused(theta, "rope_theta");
        let plain = with(json!({"rope_theta": 1e6, "rope_scaling": null})).unwrap();
        assert_eq!(plain.rope_scaling, RopeScaling::None);
        assert_eq!(plain.rope_theta, 1e6);
    }

    #[test]
    fn defaults_are_those_of_transformers() {
        let config = with(json!({})).unwrap();
        assert_eq!((config.num_kv_heads, config.head_dim), (4, 8));
        assert_eq!(
            (config.rope_theta, config.tie_word_embeddings),
            (1e4, false)
        );
        assert_eq!(
            (config.eos_token_ids, config.pad_token_id),
            (vec![2, 3], None)
        );
        let mistral = json!({"model_type": "mistral", "num_key_value_heads": 2});
        assert_eq!(with(mistral).unwrap().sliding_window, Some(4096));
        let mistral =
            json!({"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": null});
        assert_eq!(with(mistral).unwrap().sliding_window, None);
        let qwen = json!({"model_type": "qwen3", "num_key_value_heads": 2, "sliding_window": 9});
        let qwen = with(qwen).unwrap();
        assert_eq!(
            (qwen.head_dim, qwen.qk_norm, qwen.sliding_window),
            (128, QkNorm::Head, None)
        );
    }

    #[test]
    fn what_would_change_the_numbers_is_refused_by_its_key() {
        refused(json!({"model_type": "mamba"}), "model_type");
        refused(json!({"hidden_act": "wobble"}), "hidden_act");
        refused(
            json!({"rope_parameters": {"rope_type": "spiral"}}),
            "rope_type",
        );
        refused(
            json!({"rope_scaling": {"type": "yarn", "factor": 2.0}}),
            "rope_type",
        );
        refused(
            json!({"rope_scaling": {"type": "linear", "mscale": 2.0}}),
            "mscale",
        );
        refused(json!({"mlp_bias": true}), "mlp_bias");
        refused(
            json!({"partial_rotary_factor": 0.5}),
            "partial_rotary_factor",
        );
        refused(json!({"quantization_config": {}}), "quantization_config");
        let mixed = json!({
            "model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": true,
            "sliding_window": 8, "max_window_layers": 1,
        });
        refused(mixed, "sliding_window");
    }

    #[test]
    fn wrong_numbers_are_refused_by_their_key() {
        refused(json!({"hidden_size": null}), "hidden_size");
        refused(json!({"hidden_size": "32"}), "hidden_size");
        refused(json!({"hidden_size": 32.0}), "hidden_size");
        refused(json!({"num_hidden_layers": -2}), "num_hidden_layers");
        refused(json!({"num_attention_heads": 0}), "num_attention_heads");
        refused(json!({"num_attention_heads": 5}), "num_attention_heads");
        refused(json!({"num_key_value_heads": 3}), "num_key_value_heads");
        refused(json!({"num_key_value_heads": 0}), "num_key_value_heads");
        refused(json!({"head_dim": 7}), "head_dim");
        refused(json!({"rms_norm_eps": 0.0}), "rms_norm_eps");
        refused(json!({"bos_token_id": 64}), "bos_token_id");
        refused(json!({"eos_token_id": [2, 64]}), "eos_token_id");
    }

    #[test]
    fn a_number_json_does_not_know_is_reported_under_its_key() {
        let text = base()
            .to_string()
            .replace("1e-5", "NaN")
            .replace("0.00001", "NaN");
        assert!(text.contains("NaN"));
        let message = parse(&text, Path::new("c")).unwrap_err().to_string();
        assert!(message.contains("rms_norm_eps"), "{message}");
        let message = parse(" \n", Path::new("c")).unwrap_err().to_string();
        assert!(message.contains("blank"), "{message}");
        assert!(parse("{", Path::new("c")).is_err());
        assert!(parse("[]", Path::new("c")).is_err());
    }
}
