//! `moe-cl upcycle`

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::Args;
use moe_core::checkpoint::Checkpoint;
use moe_core::config::{Architecture, ModelConfig};
use moe_core::device::DeviceChoice;
use moe_core::model::{BaseDtype, Decoder};
use moe_core::upcycle::{Change, Probe, Upcycle};
use moe_hub::BaseSource;

use super::inspect::{self, bytes, count};
use crate::base;
use crate::failure::Failure;
use crate::terminal;

/// Which dense base, and what sparse one it becomes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A path, hf:owner/name[@revision] or pypi:package==version#file [default: SmolLM2-135M-Instruct]
    base: Option<BaseSource>,
    /// Experts of a sparse layer, each a copy of its feed-forward network
    #[arg(long, value_name = "N")]
    experts: usize,
    /// Experts that a token goes through
    #[arg(long, value_name = "K")]
    top_k: usize,
    /// The layers that become sparse, the first to the one after the last: 20..30 [default: the upper third]
    #[arg(long, value_name = "A..B", value_parser = layers)]
    layers: Option<Range<usize>>,
    /// Standard deviation of what is added to the experts' weights, in units of their matrix's root mean square, so that they differ from the start
    #[arg(long, value_name = "STD", default_value_t = 0.0, value_parser = noise)]
    noise: f32,
    /// Seed of the routers and of the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Number format of the matrices: f32 or bf16
    #[arg(long, value_name = "DTYPE", default_value_t = BaseDtype::F32)]
    dtype: BaseDtype,
    /// The folder of the sparse base, which is made
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// `20..30`.
fn layers(text: &str) -> Result<Range<usize>, String> {
    let ends = text.split_once("..");
    let ends = ends.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    ends.ok_or_else(|| "expected two layers, the first and the one after the last: 20..30".into())
}

fn noise(text: &str) -> Result<f32, String> {
    let number = text.parse().ok();
    let allowed = number.filter(|noise| (0.0..=10.0).contains(noise));
    allowed.ok_or_else(|| "expected a number of at least 0 and at most 10".into())
}

/// Writes the sparse base, and says how its answers to random tokens differ from the dense one's.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    let upcycle = Upcycle {
        experts: arguments.experts,
        top_k: arguments.top_k,
        layers: arguments.layers.clone(),
        noise: arguments.noise,
        seed: arguments.seed,
    };
    let (to, dtype) = (&arguments.to, arguments.dtype);
    if to.exists() {
        let message = format!("{}: it is there already", to.display());
        bail!(Failure::new(message, "name another folder with --to"));
    }
    let (source, path) = base::fetch(arguments.base.as_ref())?;
    let dense = Checkpoint::open(&path)?;
    let config = upcycle.save(&dense, dtype, to)?;
    let sparse = Checkpoint::open(to)?;
    let mut out = terminal::out();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<22}{value}");
    let was = dense.config();
    line("base", source.to_string())?;
    line("written to", to.display().to_string())?;
    line("architecture", architecture(&config))?;
    line("sparse layers", sparse_layers(&config, arguments))?;
    let (before, after) = (was.num_parameters(), config.num_parameters());
    line(
        "parameters",
        format!("{}, were {}", count(after), count(before)),
    )?;
    let size = bytes(sparse.bytes_on_disk());
    line("size on disk", format!("{size}, matrices in {dtype}"))?;
    // One model at a time is in memory.
    let device = device.unwrap_or_default().open()?;
    let before = probe(&dense, arguments, &device)?;
    let change = before.change(&probe(&sparse, arguments, &device)?);
    line("random tokens", said(&change))?;
    Ok(())
}

fn probe(checkpoint: &Checkpoint, arguments: &Arguments, device: &Device) -> Result<Probe> {
    let decoder = Decoder::load_as(checkpoint, arguments.dtype, device)?;
    Ok(Probe::of(&decoder, arguments.seed))
}

/// What was written, and who reads it.
fn architecture(config: &ModelConfig) -> String {
    match config.architecture {
        Architecture::Mixtral => "mixtral, which transformers reads too".into(),
        Architecture::Qwen3Moe => "qwen3_moe, which transformers reads too".into(),
        _ => "qwen2_moe with a shared expert of width 1, all zeros, which transformers reads too"
            .into(),
    }
}

fn sparse_layers(config: &ModelConfig, arguments: &Arguments) -> String {
    let layers = inspect::sparse_layers(config);
    let Arguments { experts, top_k, .. } = arguments;
    let range = match layers[..] {
        [] => "none".into(),
        [first, ..] => format!("{first}..{}", first + layers.len()),
    };
    format!(
        "{range} of {}, {experts} experts, {top_k} per token",
        config.num_layers
    )
}

fn said(change: &Change) -> String {
    let Change {
        tokens,
        logit,
        largest,
        perplexity: [before, after],
    } = change;
    format!(
        "{tokens}: no logit moved by more than {logit:.2e} (the largest is {largest:.1}); perplexity {before:.2} before, {after:.2} after"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_two_numbers_and_noise_is_one() {
        assert_eq!(layers("20..30"), Ok(20..30));
        for text in ["20", "20..", "20-30", "a..b", "..3"] {
            assert!(layers(text).is_err(), "{text}");
        }
        assert_eq!(noise("0.01"), Ok(0.01));
        for text in ["-1", "nan", "inf", "11", "x"] {
            assert!(noise(text).is_err(), "{text}");
        }
    }
}
