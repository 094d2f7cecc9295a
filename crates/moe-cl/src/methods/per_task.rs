//! One adapter per task, trained alone: nothing is forgotten and nothing is shared.

use burn::tensor::Device;
use moe_core::model::Decoder;
use moe_lora::Routing;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Card, Method};
use crate::learner::Learner;

/// A fresh LoRA expert for every task.
#[derive(Clone, Copy, Debug)]
pub struct PerTask;

impl Method for PerTask {
    fn name(&self) -> String {
        "per_task".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "an adapter per task, trained alone",
            needs: "task id",
            stores: "an expert",
            source: "baseline",
            strength: "",
        }
    }

    fn prepare(
        &self,
        _base: &Decoder,
        mut learner: Learner,
        _task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        learner.adapters.push_expert(rng.next_u64(), device);
        learner
    }

    fn routing(&self, task: usize) -> Routing {
        Routing::Single(task)
    }
}
