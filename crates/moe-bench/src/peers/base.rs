//! The base as a folder that Hugging Face's libraries read.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use moe_core::checkpoint::Checkpoint;
use moe_core::config::{ModelConfig, QkNorm};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;

use super::ours::setting;

/// Writes `source` to `folder` as `config.json` and `model.safetensors` in f32, and returns the folder.
///
/// # Errors
/// When the base cannot be read, is not a plain Llama of SmolLM2-135M's sizes, or cannot be written.
pub fn export(source: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let checkpoint = Checkpoint::open(source)?;
    check(checkpoint.config(), &setting(1).model())
        .with_context(|| source.display().to_string())?;
    write(&checkpoint, folder).with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(folder.to_path_buf())
}

/// Ours is timed at one size, and a peer of another would be no peer.
fn check(config: &ModelConfig, timed: &ModelConfig) -> anyhow::Result<()> {
    let sizes = |config: &ModelConfig| {
        [
            config.d_model,
            config.d_ff,
            config.num_layers,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
        ]
    };
    let (got, want) = (sizes(config), sizes(timed));
    ensure!(
        got == want,
        "the base has d_model, d_ff, layers, heads, kv heads, head_dim {got:?}, and {want:?} is timed: name SmolLM2-135M with --base"
    );
    let odd = config.attention_bias
        || config.qk_norm != QkNorm::None
        || config.sparse.is_some()
        || config.sliding_window.is_some();
    ensure!(
        !odd && config.rope_scaling == timed.rope_scaling,
        "the peers compute a plain Llama only: no biases, head norms, windows or stretched rotations"
    );
    Ok(())
}

fn write(checkpoint: &Checkpoint, folder: &Path) -> anyhow::Result<()> {
    let config = checkpoint.config();
    let json = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
        "vocab_size": config.vocab_size, "hidden_size": config.d_model, "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_norm_eps, "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
    });
    let mut tensors = Vec::new();
    for name in checkpoint.names() {
        let values = checkpoint.read_f32(name)?;
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        let shape = checkpoint.shape(name).unwrap_or_default().to_vec();
        tensors.push((name.to_string(), shape, bytes));
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &tensors {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    moe_core::atomic::replace_dir(folder, |folder| {
        std::fs::write(folder.join("config.json"), json.to_string())?;
        serialize_to_file(views, None, &folder.join("model.safetensors"))
            .map_err(std::io::Error::other)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::smollm2;

    #[test]
    fn a_base_of_another_size_is_refused() {
        let timed = smollm2(30);
        assert!(check(&timed, &timed).is_ok());
        let error = check(&smollm2(2), &timed).expect_err("other sizes");
        assert!(error.to_string().contains("30"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let tiny = json!({
            "model_type": "llama", "vocab_size": 7, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "max_position_embeddings": 8, "tie_word_embeddings": true,
        });
        let config = ModelConfig::from_json(&tiny.to_string(), Path::new("tiny")).expect("sound");
        let values: Vec<(String, Vec<usize>, Vec<u8>)> = config
            .parameter_shapes()
            .into_iter()
            .map(|(name, shape)| {
                let count: usize = shape.iter().product();
                let bytes = (0..count).flat_map(|index| (index as f32).to_le_bytes());
                (name, shape, bytes.collect())
            })
            .collect();
        let views = values.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (name, view.expect("its size"))
        });
        let first = folder.path().join("first");
        std::fs::create_dir(&first).expect("a folder");
        std::fs::write(first.join("config.json"), tiny.to_string()).expect("a file");
        serialize_to_file(views, None, &first.join("model.safetensors")).expect("a file");

        let checkpoint = Checkpoint::open(&first).expect("a base");
        let second = folder.path().join("new/second");
        write(&checkpoint, &second).expect("a folder to write to");
        let again = Checkpoint::open(&second).expect("a base");
        assert_eq!(again.config().head_dim, checkpoint.config().head_dim);
        for (name, ..) in &values {
            let read = |checkpoint: &Checkpoint| checkpoint.read_f32(name).expect("a tensor");
            assert_eq!(read(&again), read(&checkpoint), "{name}");
        }
    }
}
