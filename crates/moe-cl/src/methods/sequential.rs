//! Sequential fine-tuning, of one adapter (FT-P) or of the whole base (FT-F). The baseline that forgets.

use burn::{module::Module, tensor::Device};
use moe_core::model::{BaseDtype, Decoder};
use rand_chacha::ChaCha8Rng;

use super::{Card, Method, with_one_expert};
use crate::{
    config::{SequentialConfig, Weights},
    learner::Learner,
};

/// The same weights for the whole stream, without any protection.
#[derive(Clone, Debug)]
pub struct Sequential {
    options: SequentialConfig,
}

impl Sequential {
    /// The method with its options.
    pub fn new(options: SequentialConfig) -> Self {
        Self { options }
    }
}

impl Method for Sequential {
    fn name(&self) -> String {
        match self.options.weights {
            Weights::Adapter => "sequential".into(),
            Weights::All => "sequential (all weights)".into(),
        }
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter (or all weights) trained through all tasks",
            needs: "nothing",
            stores: "nothing",
            source: "baseline",
            strength: "",
        }
    }

    fn prepare(
        &self,
        base: &Decoder,
        mut learner: Learner,
        task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        match self.options.weights {
            Weights::Adapter => with_one_expert(learner, rng, device),
            Weights::All => {
                if task == 0 {
                    learner.adapters.banks.clear();
                    // What is trained moves by less than bf16 can hold.
                    let decoder = base.clone().with_dtype(BaseDtype::F32);
                    learner.decoder = Some(decoder.set_require_grad(true).train());
                }
                learner
            }
        }
    }
}
