//! A learner before its first task, and what a task adds to it.

use burn::optim::ModuleOptimizer;
use moe_core::model::Decoder;
use moe_lora::Adapters;

use super::optimizer::adamw;
use crate::{
    base::Base,
    config::{Experiment, Objective},
    error::Result,
    head::Head,
    learner::Learner,
    methods::Method,
    seeds::{Purpose, Seeds},
};

/// Index of the draws for all heads, out of the way of the tasks' own draws.
const HEADS: usize = usize::MAX;

/// A learner without experts; with classification heads it has one for each task, of the given numbers of classes.
///
/// # Errors
/// When the adapters' targets or layers match nothing in the base.
pub fn untrained(
    experiment: &Experiment,
    base: &Base,
    classes: impl Iterator<Item = usize>,
) -> Result<Learner> {
    let device = base.decoder.device().autodiff();
    let config = base.decoder.config();
    let mut rng = Seeds(experiment.seed).rng(Purpose::Weights, HEADS, 0);
    let pooling = experiment.training.pooling;
    let heads = match experiment.training.objective {
        Objective::Heads => classes
            .map(|classes| Head::random(config.d_model, classes, pooling, &mut rng, &device))
            .collect(),
        Objective::Instruction => Vec::new(),
    };
    let adapters = Adapters::new(&(&experiment.adapters).into(), config)?;
    Ok(Learner {
        heads,
        ..Learner::new(adapters)
    })
}

/// Adds what `task` needs. The new weights are a function of the seed and the task alone.
pub fn prepare(
    method: &dyn Method,
    experiment: &Experiment,
    base: &Decoder,
    learner: Learner,
    task: usize,
) -> Learner {
    let mut rng = Seeds(experiment.seed).rng(Purpose::Weights, task, 0);
    method.prepare(base, learner, task, &mut rng, &base.device().autodiff())
}

/// AdamW without state: each task starts with one, as the MoE-CL authors do.
pub fn fresh_optimizer(experiment: &Experiment) -> ModuleOptimizer {
    adamw((0.9, 0.999), 1e-8, experiment.training.weight_decay)
}
