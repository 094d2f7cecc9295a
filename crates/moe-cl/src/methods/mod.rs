//! Continual-learning methods: one file each. A method says what a task adds, which experts answer for it,
//! and what the loss of a batch is; the forward pass is in its `loss`, in plain sight.

mod moe_cl;
mod per_task;
mod sequential;

use burn::tensor::{Device, Tensor};
use moe_core::{config::ModelConfig, model::Decoder};
use moe_lora::{LoraDropout, Routing};
use rand_chacha::ChaCha8Rng;

pub use moe_cl::MoeCl;
pub use per_task::PerTask;
pub use sequential::Sequential;

use crate::{
    config::{MethodConfig, Objective},
    data::Batch,
    learner::Learner,
};

/// What a method reads in one training step.
pub struct Step<'a> {
    /// The frozen base.
    pub base: &'a Decoder,
    /// What is trained, on the autodiff device.
    pub learner: &'a Learner,
    /// Texts of the current task.
    pub batch: &'a Batch,
    /// Index of the current task.
    pub task: usize,
    /// How labels are predicted.
    pub objective: Objective,
    /// The LoRA dropout of this step; none where it is off.
    pub dropout: Option<LoraDropout>,
    /// Draws of the method itself.
    pub rng: ChaCha8Rng,
}

/// The loss of one batch. Gradients flow from `total`; the parts are for the log.
pub struct Loss {
    /// What is minimised, shape `[1]`.
    pub total: Tensor<1>,
    /// Loss of the task alone, shape `[1]`, detached.
    pub task: Tensor<1>,
    /// The discriminators' side, where the method has an adversary and there are tasks to tell apart.
    pub adversary: Option<Adversary>,
}

/// How the discriminators did on one batch.
pub struct Adversary {
    /// Their mean cross-entropy, shape `[1]`, detached.
    pub loss: Tensor<1>,
    /// Share of the batch's pooled features, over all layers, whose task they named rightly, shape `[1]`.
    pub accuracy: Tensor<1>,
}

/// A continual-learning method.
pub trait Method {
    /// Name and mode for tables.
    fn name(&self) -> String;

    /// Adds to `learner` what `task` needs before its first step. Tasks are prepared in order, and the draws of `rng` alone decide
    /// the new weights, so that the same call gives the same learner again (resume, looking ahead at unseen tasks).
    fn prepare(
        &self,
        base: &ModelConfig,
        learner: Learner,
        task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner;

    /// Which experts answer for `task`, and through which gate.
    fn routing(&self, task: usize) -> Routing;

    /// Which experts answer for a text that belongs to no known task, `task` being the nearest: those that all tasks share.
    /// None where there are none; the nearest task then answers.
    fn fallback(&self, _task: usize) -> Option<Routing> {
        None
    }

    /// Forward pass and loss of one batch.
    fn loss(&self, step: Step<'_>) -> Loss;

    /// Batches of the finished task that [`Method::remember`] wants to see (0: none).
    fn batches_to_remember(&self) -> usize {
        0
    }

    /// Takes from the finished task what later tasks need. `learner` is off the autodiff device.
    fn remember(&mut self, _base: &Decoder, _learner: &Learner, _task: usize, _batches: &[Batch]) {}

    /// What [`Method::remember`] kept, for checkpoints.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    fn memory(&self) -> serde_json::Result<serde_json::Value> {
        Ok(serde_json::Value::Null)
    }

    /// Puts back what [`Method::memory`] gave.
    ///
    /// # Errors
    /// When the value is not of the form that this method writes.
    fn restore(&mut self, _memory: serde_json::Value) -> serde_json::Result<()> {
        Ok(())
    }
}

/// The method that a configuration names, for a stream of `tasks` tasks.
pub fn method(config: &MethodConfig, tasks: usize) -> Box<dyn Method> {
    match config {
        MethodConfig::MoeCl(options) => Box::new(MoeCl::new(options.clone(), tasks)),
        MethodConfig::Sequential => Box::new(Sequential),
        MethodConfig::PerTask => Box::new(PerTask),
    }
}

/// Forward through one expert and the loss of the task: what every method without an adversary does.
fn single_expert_loss(step: Step<'_>, routing: &Routing) -> Loss {
    let Step {
        base,
        learner,
        batch,
        task,
        objective,
        dropout,
        ..
    } = step;
    let forward = learner.adapters.forward(
        base,
        batch.tokens.clone(),
        batch.real.clone(),
        routing,
        None,
        dropout.as_ref(),
    );
    let total = crate::objective::task_loss(objective, base, learner, task, forward.hidden, batch);
    Loss {
        task: total.clone().detach(),
        total,
        adversary: None,
    }
}
