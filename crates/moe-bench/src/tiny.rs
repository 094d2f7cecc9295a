//! A base of a few thousand random weights and tasks for it, so that everything but the products shows.

use std::{fs, path::Path};

use moe_core::config::ModelConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;

/// Words of the base; each task asks about two of its own.
const WORDS: usize = 2000;

/// Writes a Llama folder of random weights whose tokenizer splits at spaces.
///
/// # Errors
/// When the disk refuses.
pub fn write_base(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let config = json!({
        "model_type": "llama", "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "eos_token_id": 1, "pad_token_id": 0,
        "hidden_act": "silu",
    });
    let config = config.to_string();
    fs::write(folder.join("config.json"), &config)?;
    let words = (0..WORDS).map(|id| (format!("w{id}"), id.into()));
    let vocabulary: serde_json::Map<String, serde_json::Value> = words.collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let tensors = ModelConfig::from_json(&config, folder)?
        .parameter_shapes()
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<usize>();
            let draw = |_| rng.random_range(-0.4f32..0.4).to_le_bytes();
            (name, shape, (0..count).flat_map(draw).collect::<Vec<u8>>())
        })
        .collect::<Vec<_>>();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        view.map(|view| (name.clone(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    Ok(serialize_to_file(
        views,
        None,
        &folder.join("model.safetensors"),
    )?)
}

/// Writes texts that say one of two words, under a label for each, as `tN.jsonl`; the task's name.
///
/// # Errors
/// When the disk refuses.
pub fn write_task(folder: &Path, task: usize) -> anyhow::Result<String> {
    let name = format!("t{task}");
    let rows: String = (0..24)
        .map(|row| {
            let word = 10 + 2 * task % (WORDS - 20) + row % 2;
            let label = ["a", "b"][row % 2];
            format!(
                "{{\"text\": \"w2 w{word} w{}\", \"label\": \"{label}\"}}\n",
                3 + row % 5
            )
        })
        .collect();
    fs::write(folder.join(format!("{name}.jsonl")), rows)?;
    Ok(name)
}
