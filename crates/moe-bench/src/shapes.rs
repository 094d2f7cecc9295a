//! Sizes that the benchmarks share: those of SmolLM2-135M, with random weights, since time does not depend on what they say.

use std::path::Path;

use burn::tensor::{Device, Distribution, Int, Tensor};
use moe_core::config::ModelConfig;
use moe_core::device::DeviceChoice;

/// Settings of SmolLM2-135M cut to `layers` layers (it has 30).
///
/// # Panics
/// Never: the settings are sound.
pub fn smollm2(layers: usize) -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": layers, "num_attention_heads": 9, "num_key_value_heads": 3, "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0, "max_position_embeddings": 8192, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    ModelConfig::from_json(&json.to_string(), Path::new("benchmark"))
        .expect("the settings above are sound")
}

/// The CPU, or what `MOE_CL_DEVICE` names among the devices of this build.
///
/// # Panics
/// When that device is unknown or not in this build.
pub fn device() -> Device {
    let name = std::env::var("MOE_CL_DEVICE").unwrap_or_else(|_| "cpu".into());
    let choice: DeviceChoice = name.parse().expect("MOE_CL_DEVICE names a device");
    choice.open().expect("the device is in this build")
}

/// Token ids `[batch, seq]`, none of them special.
pub fn tokens(batch: usize, seq: usize, config: &ModelConfig, device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..batch * seq)
        .map(|index| (17 + 31 * index as i64) % config.vocab_size as i64)
        .collect();
    Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape([batch, seq])
}

/// A random matrix with entries of about one.
pub fn matrix(rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::random([rows, columns], Distribution::Uniform(-1.0, 1.0), device)
}
