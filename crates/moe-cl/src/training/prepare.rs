//! A learner before its first task, and what a task adds to it.

use burn::optim::ModuleOptimizer;
use moe_core::{model::Decoder, parameters::identify};
use moe_lora::Catalogue;

use super::optimizer::adamw;
use crate::{
    config::{Experiment, Objective, TrainingConfig},
    directory::TaskSettings,
    error::{Error, Result},
    head::Head,
    learner::Learner,
    methods::{Method, NewTask, method},
    seeds::{Purpose, Seeds},
};

/// A learner without experts and tasks.
///
/// # Errors
/// When the adapters' targets or layers match nothing in the base, where the method has adapters; when the method's options do not fit
/// the base, or a loss of routers is asked for and the base has no router.
pub fn untrained(experiment: &Experiment, base: &Decoder) -> Result<Learner> {
    let config = base.config();
    let method = method(&experiment.method, experiment.tasks.len());
    method.check(config)?;
    if let (Some(key), None) = (experiment.balance.asks(), &config.sparse) {
        return Err(Error::NoRouters { key });
    }
    let catalogue = match method.adapts() {
        true => Catalogue::new(&(&experiment.adapters).into(), config)?,
        false => Catalogue::of_none(config),
    };
    Ok(Learner::new(catalogue))
}

/// What is to be known of a task to make room for it.
#[derive(Clone, Copy, Debug)]
pub struct TaskForm<'a> {
    /// Its place in the order in which tasks are learnt.
    pub task: usize,
    /// Its name.
    pub name: &'a str,
    /// Number of its labels.
    pub classes: usize,
    /// Its settings.
    pub settings: &'a TaskSettings,
}

/// Adds what a task needs. The new weights are a function of the seed and the task alone, whether the task was known from the
/// start or came later.
pub fn prepare(
    method: &dyn Method,
    seed: u64,
    base: &Decoder,
    mut learner: Learner,
    form: TaskForm<'_>,
) -> Learner {
    let TaskForm {
        task,
        name,
        classes,
        settings,
    } = form;
    let (seeds, device) = (Seeds(seed), base.device().autodiff());
    let heads = settings.training.objective == Objective::Heads;
    learner.heads.push(heads.then(|| {
        let (d_model, pooling) = (base.config().d_model, settings.training.pooling);
        let mut rng = seeds.rng(Purpose::Head, task, 0);
        let head = Head::random(d_model, classes, pooling, &mut rng, &device);
        identified(head, task)
    }));
    let new = NewTask {
        base,
        task,
        name,
        lora: &settings.lora(),
        rng: seeds.rng(Purpose::Weights, task, 0),
        device,
    };
    method.prepare(learner, new)
}

/// The head of a task, with an id that is the same in every process.
pub(super) fn identified(head: Head, task: usize) -> Head {
    identify(head, &format!("head.{task}"))
}

/// AdamW without state: each task starts with one, as the MoE-CL authors do.
pub fn fresh_optimizer(training: &TrainingConfig) -> ModuleOptimizer {
    adamw((0.9, 0.999), 1e-8, training.weight_decay)
}
