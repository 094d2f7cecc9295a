//! LoRA adapters as folders of Hugging Face PEFT: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! PEFT stores `A [rank, d_in]` and `B [d_out, rank]`, transposed against [`Lora`](crate::Lora), and scales by `alpha / rank` or `alpha / √rank`
//! as [`LoraConfig::scaling`] does. Names are those of the base's modules behind `base_model.model.`.
//!
//! Reading is strict: a setting that would change the numbers and is not understood is refused by its name, and so is a tensor that
//! belongs to no LoRA. What is read and written again is the same, bit for bit.

mod file;
mod join;
#[cfg(test)]
mod laws;
mod modules;
mod read;
mod settings;
mod write;

use moe_core::config::ModelConfig;

pub use self::join::Share;
use crate::error::{Error, Result};
use crate::{Catalogue, Expert, LayerExpert, LoraConfig, Placed};

/// Name of the settings' file.
const CONFIG: &str = "adapter_config.json";

/// Name of the weights' file.
const WEIGHTS: &str = "adapter_model.safetensors";

/// A LoRA adapter of a whole base.
#[derive(Clone, Debug)]
pub struct PeftAdapter {
    /// Rank and scaling where no pattern says another, and the dropout that it was trained with.
    pub lora: LoraConfig,
    /// Per layer of the base, lowest first: its LoRAs, in the order of [`Projection::ALL`](crate::Projection::ALL).
    pub placed: Vec<Vec<Placed>>,
    /// Per layer of the base: their weights.
    pub layers: Vec<LayerExpert>,
    /// SHA-256 of the weights' file; empty where it was made in memory.
    pub sha256: String,
}

impl PeftAdapter {
    /// What `expert` of `catalogue` is, on its base.
    ///
    /// # Errors
    ///
    /// When it has LoRAs inside a sparse mixture.
    pub fn of(catalogue: &Catalogue, expert: &Expert, base: &ModelConfig) -> Result<Self> {
        let adapted = catalogue.layers();
        let (mut placed, mut layers) = (Vec::<Vec<Placed>>::new(), Vec::new());
        for layer in 0..base.num_layers {
            let place = layer.checked_sub(adapted.start);
            let weights = place.and_then(|place| expert.layers.get(place));
            placed.push(match (place, weights) {
                (Some(place), Some(_)) => sorted(expert.info.placed_in(place)),
                _ => Vec::new(),
            });
            let inside = |it: &Placed| modules::is_inside(it.target);
            let sparse = base.sparse_in(layer).is_some();
            if sparse && placed.last().is_some_and(|it| it.iter().any(inside)) {
                return Err(Error::InsideMixture { layer });
            }
            layers.push(weights.cloned().unwrap_or_default());
        }
        Ok(Self {
            lora: expert.info.lora.clone(),
            placed,
            layers,
            sha256: String::new(),
        })
    }

    /// Every LoRA's layer, place, size and scaling by the settings.
    fn loras(&self) -> impl Iterator<Item = (usize, &Placed)> {
        let layers = self.placed.iter().enumerate();
        layers.flat_map(|(layer, placed)| placed.iter().map(move |it| (layer, it)))
    }
}

/// In the order of [`Projection::ALL`](crate::Projection::ALL).
fn sorted(mut placed: Vec<Placed>) -> Vec<Placed> {
    placed.sort_by_key(|it| it.target as usize);
    placed
}
