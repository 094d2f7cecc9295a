//! Sequential fine-tuning (FT-P): one adapter, trained through all tasks. The baseline that forgets.

use burn::tensor::Device;
use moe_core::config::ModelConfig;
use moe_lora::Routing;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Loss, Method, Step, single_expert_loss};
use crate::learner::Learner;

/// One LoRA expert for the whole stream, without any protection.
#[derive(Clone, Copy, Debug)]
pub struct Sequential;

impl Method for Sequential {
    fn name(&self) -> String {
        "sequential".into()
    }

    fn prepare(
        &self,
        _base: &ModelConfig,
        mut learner: Learner,
        task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        if task == 0 {
            learner.adapters.push_expert(rng.next_u64(), device);
        }
        learner
    }

    fn routing(&self, _task: usize) -> Routing {
        Routing::Single(0)
    }

    fn loss(&self, step: Step<'_>) -> Loss {
        single_expert_loss(step, &Routing::Single(0))
    }
}
