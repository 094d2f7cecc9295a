//! A linear probe: classification heads on the untouched base. What is above it was learnt by adapting.

use burn::tensor::Device;
use moe_core::model::Decoder;
use rand_chacha::ChaCha8Rng;

use super::{Card, Method};
use crate::learner::Learner;

/// Heads and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct LinearProbe;

impl Method for LinearProbe {
    fn name(&self) -> String {
        "linear_probe".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "a head per task on the untouched base",
            needs: "nothing besides the head",
            stores: "nothing",
            source: "baseline (Alain & Bengio, arXiv 1610.01644)",
            strength: "",
        }
    }

    /// Takes the banks away: no layer is adapted, and no backward pass runs below the heads.
    fn prepare(
        &self,
        _base: &Decoder,
        mut learner: Learner,
        _task: usize,
        _rng: &mut ChaCha8Rng,
        _device: &Device,
    ) -> Learner {
        learner.adapters.banks.clear();
        learner
    }
}
