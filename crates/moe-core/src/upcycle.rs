//! Sparse upcycling: a dense checkpoint becomes a sparse one whose experts are copies of its feed-forward networks
//! (Komatsuzaki et al. 2023, arXiv 2212.05055, section 2.1).
//!
//! The weights of a token's experts are divided by their sum, so that copies weigh one together and the function is the dense one
//! to rounding. (The paper leaves that to vision; for text it lets the sum be less than one, and the model recovers.)

mod probe;

use std::ops::Range;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::checkpoint::{Checkpoint, save_folder};
use crate::config::{Architecture, ExpertNames, ModelConfig, SparseConfig};
use crate::error::{Error, Result};
use crate::model::BaseDtype;

pub use probe::{Change, Probe};

/// Spread of a new router's weights, as in the paper (appendix A.1.1).
const ROUTER_SPREAD: f32 = 0.02;

/// What becomes of a dense checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Upcycle {
    /// Experts of a sparse layer.
    pub experts: usize,
    /// Experts that a token goes through.
    pub top_k: usize,
    /// The layers that become sparse; none: the upper third.
    pub layers: Option<Range<usize>>,
    /// Standard deviation of what is added to an expert's weights, in units of the root mean square of the matrix.
    pub noise: f32,
    /// Seed of routers and noise.
    pub seed: u64,
}

/// The upper third of `layers`, rounded up.
pub fn upper_third(layers: usize) -> Range<usize> {
    layers - layers.div_ceil(3)..layers
}

impl Upcycle {
    /// The settings of the sparse model, in the architecture of transformers that has them.
    ///
    /// Qwen3 becomes Qwen3-MoE. Llama and Mistral become Mixtral where all layers are sparse. Everything else becomes Qwen2-MoE,
    /// with biases of zero where the base has none, and beside the experts one of width 1, all zeros, that the format asks for.
    ///
    /// # Errors
    /// [`Error::Config`] when the base is sparse already, there are fewer than two experts, fewer experts than a token goes
    /// through, or no such layers. `path` is the base's.
    pub fn config(&self, dense: &ModelConfig, path: &Path) -> Result<ModelConfig> {
        let refuse = |key: &str, message: String| Err(Error::config(path, key, message));
        if let Some(sparse) = &dense.sparse {
            let message = format!(
                "the base is sparse already, with {} experts; name a dense one",
                sparse.num_experts
            );
            return refuse("num_experts", message);
        }
        let layers = self.layers.clone();
        let layers = layers.unwrap_or_else(|| upper_third(dense.num_layers));
        if layers.is_empty() || layers.end > dense.num_layers {
            let message = format!(
                "layers {}..{} are not among the base's {}; name some of 0..{}",
                layers.start, layers.end, dense.num_layers, dense.num_layers
            );
            return refuse("num_hidden_layers", message);
        }
        if self.experts < 2 {
            let message = format!("{} is no choice; at least 2 experts", self.experts);
            return refuse("num_experts", message);
        }
        let all = layers == (0..dense.num_layers);
        let architecture = match dense.architecture {
            Architecture::Qwen3 => Architecture::Qwen3Moe,
            Architecture::Llama | Architecture::Mistral if all && !dense.attention_bias => {
                Architecture::Mixtral
            }
            _ => Architecture::Qwen2Moe,
        };
        let dense_layers = (0..dense.num_layers).filter(|layer| !layers.contains(layer));
        let sparse = ModelConfig {
            architecture,
            attention_bias: architecture == Architecture::Qwen2Moe,
            sparse: Some(SparseConfig {
                names: match architecture {
                    Architecture::Mixtral => ExpertNames::Mixtral,
                    _ => ExpertNames::Qwen,
                },
                num_experts: self.experts,
                top_k: self.top_k,
                d_ff: dense.d_ff,
                norm_topk_prob: true,
                shared_d_ff: (architecture == Architecture::Qwen2Moe).then_some(1),
                step: 1,
                dense_layers: dense_layers.collect(),
            }),
            ..dense.clone()
        };
        sparse.check(path)?;
        Ok(sparse)
    }

    /// Writes the sparse model of `dense` as the new folder `to`, its matrices in `dtype`, and returns its settings. One tensor is in
    /// memory at a time.
    ///
    /// # Errors
    /// As [`Self::config`] and [`save_folder`].
    pub fn save(&self, dense: &Checkpoint, dtype: BaseDtype, to: &Path) -> Result<ModelConfig> {
        let config = self.config(dense.config(), dense.path())?;
        save_folder(to, &config, dtype, dense, |name, shape| {
            self.tensor(dense, &config, name, shape)
        })?;
        Ok(config)
    }

    /// The tensor of the sparse model that is called `name`.
    fn tensor(
        &self,
        dense: &Checkpoint,
        config: &ModelConfig,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<f32>> {
        if dense.shape(name).is_some() {
            return dense.read_f32(name);
        }
        let count = shape.iter().product();
        let Some((layer, rest)) = in_mixture(name, config) else {
            // What the dense model has not: biases.
            return Ok(vec![0.0; count]);
        };
        if rest == "gate.weight" {
            return Ok(self.normal(name, count, ROUTER_SPREAD).collect());
        }
        let Some((_, matrix)) = rest
            .strip_prefix("experts.")
            .and_then(|it| it.split_once('.'))
        else {
            // The shared expert, which adds nothing.
            return Ok(vec![0.0; count]);
        };
        let names = config
            .sparse
            .as_ref()
            .map_or([""; 3], |it| it.names.matrices());
        let which = names
            .iter()
            .position(|it| matrix.strip_suffix(".weight") == Some(it));
        let matrix = ["gate_proj", "up_proj", "down_proj"][which.unwrap_or_default()];
        let mut numbers = dense.read_f32(&format!("model.layers.{layer}.mlp.{matrix}.weight"))?;
        if self.noise > 0.0 {
            let squares: f64 = numbers.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let spread = self.noise * (squares / count as f64).sqrt() as f32;
            let noise = self.normal(name, count, spread);
            numbers
                .iter_mut()
                .zip(noise)
                .for_each(|(x, noise)| *x += noise);
        }
        Ok(numbers)
    }

    /// Normal draws for the tensor called `name`.
    fn normal(&self, name: &str, count: usize, spread: f32) -> impl Iterator<Item = f32> {
        let mut key = [0; 32];
        key.copy_from_slice(&<sha2::Sha256 as sha2::Digest>::digest(format!(
            "{} {name}",
            self.seed
        )));
        let mut rng = ChaCha8Rng::from_seed(key);
        (0..count).map(move |_| spread * rng.sample::<f32, _>(StandardNormal))
    }
}

/// The layer and the rest of a name that belongs to a mixture.
fn in_mixture<'a>(name: &'a str, config: &ModelConfig) -> Option<(usize, &'a str)> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let layer = layer.parse().ok()?;
    let block = config.sparse_in(layer)?.names.block();
    Some((layer, rest.strip_prefix(block)?.strip_prefix('.')?))
}

#[cfg(test)]
mod tests;
