//! One optimiser step: micro-batches forward and backward, clipping, AdamW.

use std::{collections::BTreeMap, fmt};

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer},
    tensor::Tensor,
};
use moe_core::model::Decoder;
use moe_lora::LoraDropout;
use rand::Rng;

use crate::{
    data::{Collate, Example},
    directory::TaskSettings,
    events::LayerBalance,
    learner::Learner,
    methods::{AfterBackward, Method, Own, Place, Step},
    seeds::{Purpose, Seeds},
    training::{
        balance::{Balances, with_routers},
        optimizer::{clip_by_global_norm, gradient_norm, largest_gradient},
    },
};

/// What one optimiser step reads besides the weights.
pub struct StepInput<'a> {
    /// Settings of the task.
    pub settings: &'a TaskSettings,
    /// Seed of the run.
    pub seed: u64,
    /// The frozen base.
    pub base: &'a Decoder,
    /// The continual method.
    pub method: &'a dyn Method,
    /// Index of the task.
    pub task: usize,
    /// Micro-batches of the step.
    pub micro_batches: &'a [Vec<&'a Example>],
    /// Optimiser step of the run, the place of its random draws.
    pub step: usize,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// How batches are made.
    pub collate: Collate<'a>,
}

/// Figures of one optimiser step, over all of its micro-batches.
#[derive(Clone, Debug, PartialEq)]
pub struct StepFigures {
    /// Loss of the task alone.
    pub loss: f64,
    /// What else the method said of the step, by name ([`Loss::figures`](crate::methods::Loss::figures)).
    pub figures: BTreeMap<String, f64>,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens that are not padding.
    pub real_tokens: usize,
    /// How they were spread over the experts of a sparse base, where that was looked at (`balance.every`).
    pub balance: Vec<LayerBalance>,
    /// Per layer with a router, its index and `[experts]`, how many tokens chose each expert.
    pub wanted: Vec<(usize, Vec<u64>)>,
}

/// Loss or gradient of a step that are no finite numbers: the learner is not to be moved by them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct NotFinite {
    /// Loss of the task alone.
    pub loss: f64,
    /// Norm of all gradients.
    pub gradient_norm: f64,
    /// The parameter that is to blame, and the norm of its gradient.
    pub culprit: Option<(String, f64)>,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (loss, norm) = (self.loss, self.gradient_norm);
        write!(f, "the loss is {loss} and the norm of the gradient {norm}")?;
        match &self.culprit {
            Some((name, norm)) => write!(f, ", that of parameter `{name}` being {norm:.3e}"),
            None => Ok(()),
        }
    }
}

/// Takes one step and returns the moved learner.
///
/// # Errors
/// When loss or gradient are not finite.
pub fn optimizer_step(
    input: &StepInput<'_>,
    learner: Learner,
    optimizer: &mut ModuleOptimizer,
) -> Result<(Learner, StepFigures), NotFinite> {
    let (gradients, figures) = gradients(input, &learner)?;
    let learner = optimizer.step(input.learning_rate, learner, gradients);
    Ok((rebalanced(learner, input.task, &figures), figures))
}

/// The learner with the biases moved by which the routers of `task` balance, where they do.
pub(super) fn rebalanced(mut learner: Learner, task: usize, figures: &StepFigures) -> Learner {
    if let Some(gate) = learner.trained(task).gate()
        && !figures.wanted.is_empty()
    {
        learner.catalogue.rebalance(gate, &figures.wanted);
    }
    learner
}

/// The gradients of a step as the optimiser takes them: summed over the micro-batches, each of which gives its part of the loss
/// ([`Place`]), constrained by the method, and clipped. The memory is that of one micro-batch.
///
/// # Errors
/// When loss or gradient are not finite.
pub fn gradients(
    input: &StepInput<'_>,
    learner: &Learner,
) -> Result<(GradientsParams, StepFigures), NotFinite> {
    let StepInput {
        settings,
        seed,
        base,
        method,
        task,
        micro_batches,
        step,
        collate,
        ..
    } = *input;
    let collate = learner.collate(collate);
    let (training, dropout) = (&settings.training, settings.adapters.dropout);
    let seeds = Seeds(seed);
    let device = base.device();

    let mut accumulated = GradientsAccumulator::new();
    let (mut loss, mut real_tokens) = (0.0, 0);
    let (mut named, mut balances) = (BTreeMap::new(), Balances::default());
    let mut wanted: Vec<(usize, Vec<u64>)> = Vec::new();
    let mut place = Place::first_of(micro_batches);
    for (part, examples) in micro_batches.iter().enumerate() {
        let batch = collate.batch(examples, &device);
        let losses = method.loss(Step {
            base: learner.decoder(base),
            learner,
            batch: &batch,
            place,
            task,
            collate,
            dropout: (dropout > 0.0).then(|| {
                let seed = seeds.rng(Purpose::Dropout, step, part).next_u64();
                LoraDropout::new(dropout, seed)
            }),
            rng: seeds.rng(Purpose::StandIns, step, part),
        });
        let share = batch.lengths.len() as f64 / place.texts as f64;
        let losses = with_routers(&settings.balance, losses, &batch, share);
        if step.is_multiple_of(settings.balance.every) {
            balances.add(&losses.dispatched, &losses.routed, &batch);
        }
        let gradients = losses.total.backward();
        accumulated.accumulate(learner, GradientsParams::from_grads(gradients, learner));

        real_tokens += batch.real_tokens;
        loss += f64::from(losses.task.into_scalar::<f32>());
        for (layer, dispatch) in &losses.dispatched {
            count(&mut wanted, *layer, &dispatch.wanted);
        }
        for (name, figure) in losses.figures {
            *named.entry(name.to_owned()).or_insert(0.0) += f64::from(figure.into_scalar::<f32>());
        }
        place.first = false;
    }

    let after = AfterBackward {
        base: learner.decoder(base),
        learner,
        collate,
        rng: seeds.rng(Purpose::Rehearsal, step, 0),
    };
    let mut gradients = method.constrain(accumulated.grads(), after);
    let gradient_norm = gradient_norm(learner, &gradients);
    if !loss.is_finite() || !gradient_norm.is_finite() {
        return Err(NotFinite {
            loss,
            gradient_norm,
            culprit: largest_gradient(learner, &gradients),
        });
    }
    if let Some(max_norm) = training.clip_norm {
        gradients = clip_by_global_norm(learner, gradients, gradient_norm, max_norm);
    }
    let figures = StepFigures {
        loss,
        figures: named,
        gradient_norm,
        real_tokens,
        balance: balances.figures(),
        wanted,
    };
    Ok((gradients, figures))
}

/// Adds the choices of a micro-batch to those of its step.
fn count(all: &mut Vec<(usize, Vec<u64>)>, layer: usize, wanted: &[u32]) {
    match all.iter_mut().find(|(known, _)| *known == layer) {
        Some((_, sums)) => {
            let pairs = sums.iter_mut().zip(wanted);
            pairs.for_each(|(sum, &one)| *sum += u64::from(one));
        }
        None => all.push((layer, wanted.iter().copied().map(u64::from).collect())),
    }
}

/// Parameters that belong together.
pub struct Part {
    /// Where they stand in the learner.
    pub name: String,
    /// Their ids.
    pub ids: Vec<ParamId>,
    /// How many numbers they hold.
    pub size: u64,
}

impl Part {
    fn new(name: String, module: &impl Module) -> Self {
        Self {
            name,
            ids: trained_ids(module),
            size: module.num_params() as u64,
        }
    }
}

/// The ids of the parameters of `module` that want a gradient: the bias of a router has none.
fn trained_ids(module: &impl Module) -> Vec<ParamId> {
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0
                .extend(param.val().is_require_grad().then_some(param.id));
        }
    }
    let mut ids = Ids(Vec::new());
    module.visit(&mut ids);
    ids.0
}

/// The parts that a task trains: its experts and gate ([`Learner::trained`]), its head, and what the method trains besides, where
/// it does so with this task ([`Method::trains_own`]).
pub fn trained_parameters(method: &dyn Method, learner: &Learner, task: usize) -> Vec<Part> {
    let (catalogue, trained) = (&learner.catalogue, learner.trained(task));
    let mut parts = Vec::new();
    match &learner.own {
        Some(Own::Decoder(decoder)) => {
            parts.push(Part::new("decoder.embedding".into(), &decoder.embedding));
            parts.push(Part::new("decoder.layers".into(), &decoder.layers));
            parts.push(Part::new("decoder.norm".into(), &decoder.norm));
            // Heads take the place of the vocabulary projection.
            if let (None, Some(lm_head)) = (learner.head(task), &decoder.lm_head) {
                parts.push(Part::new("decoder.lm_head".into(), lm_head));
            }
        }
        Some(own) if method.trains_own(task) => {
            parts.push(Part::new("what the method has of its own".into(), own));
        }
        _ => {}
    }
    for &id in trained.experts() {
        parts.push(Part::new(format!("expert {id}"), catalogue.expert(id)));
    }
    if let Some(id) = trained.gate() {
        parts.push(Part::new(format!("gate {id}"), catalogue.gate(id)));
    }
    if let Some(head) = learner.head(task) {
        parts.push(Part::new(format!("head {task}"), head));
    }
    parts
}
