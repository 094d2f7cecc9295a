//! Multi-task training: all tasks' data at once, with one adapter. The upper bound that continual methods are held against.

use std::ops::Range;

use burn::tensor::Device;
use moe_core::model::Decoder;
use moe_lora::Routing;
use rand_chacha::ChaCha8Rng;

use super::{Card, Loss, Method, Step, routed_loss, with_one_expert};
use crate::learner::Learner;

/// One LoRA expert that learns everything in the first stage. The stages after it learn nothing, so that every row of the
/// accuracy matrix is the same and BWT and forgetting are zero by construction.
#[derive(Clone, Copy, Debug)]
pub struct Joint;

impl Method for Joint {
    fn name(&self) -> String {
        "joint".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter, all tasks' data together: upper bound",
            needs: "nothing",
            stores: "nothing, but trains on all data at once",
            source: "baseline",
            strength: "",
        }
    }

    fn prepare(
        &self,
        _base: &Decoder,
        learner: Learner,
        _task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        with_one_expert(learner, rng, device)
    }

    fn routing(&self, _task: usize) -> Routing {
        Routing::Single(0)
    }

    fn stage(&self, task: usize, tasks: usize) -> Range<usize> {
        match task {
            0 => 0..tasks,
            _ => task..task,
        }
    }

    fn loss(&self, step: Step<'_>) -> Loss {
        routed_loss(&step, &Routing::Single(0))
    }
}
