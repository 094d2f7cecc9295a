//! Continual-learning methods: one file each. A method says what a task adds, which experts answer for it,
//! and what the loss of a batch is; the forward pass is in its `loss`, in plain sight.

mod a_gem;
mod card;
mod distillation;
mod ewc;
mod importance;
mod joint;
mod linear_probe;
mod lwf;
mod mocl;
mod moe_cl;
mod o_lora;
mod own;
mod per_task;
mod rehearsal;
mod replay;
mod sequential;
mod slao;

use std::{io, ops::Range};

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use moe_core::model::Decoder;
use moe_lora::{Catalogue, ExpertId, LoraConfig, LoraDropout, Mix, Routing, Texts};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Serialize, de::DeserializeOwned};

pub use a_gem::{AGem, dot, project};
pub use card::Card;
pub use distillation::{distillation, divergence};
pub use ewc::{Ewc, EwcConfig, EwcMode, fisher};
pub use importance::{Anchor, Importance, penalty};
pub use joint::Joint;
pub use linear_probe::LinearProbe;
pub use lwf::{Lwf, LwfConfig};
pub use mocl::Mocl;
pub use moe_cl::{
    DISCRIMINATOR_LOSS, DiscriminatorLoss, Experts, Gate, Mode, MoeCl, MoeClConfig, SharedExpert,
};
pub use o_lora::{OLora, OLoraConfig, OLoraTest, overlap};
pub use own::{Own, OwnForm};
pub use per_task::PerTask;
pub use rehearsal::{Kept, RehearsalConfig, Reservoir};
pub use replay::Replay;
pub use sequential::{Sequential, SequentialConfig, Weights};
pub use slao::Slao;

use crate::{
    config::{MethodConfig, Objective},
    data::{Batch, Collate, Example},
    learner::{Learner, TaskExperts},
};

/// A task that is about to be learnt, for what a method adds for it.
pub struct NewTask<'a> {
    /// The frozen base.
    pub base: &'a Decoder,
    /// Its place in the order in which tasks are learnt.
    pub task: usize,
    /// Its name.
    pub name: &'a str,
    /// Size and start of its experts.
    pub lora: &'a LoraConfig,
    /// Draws of new weights, a function of the seed and the task.
    pub rng: ChaCha8Rng,
    /// Where what is trained lives, an autodiff device.
    pub device: Device,
}

impl NewTask<'_> {
    /// Adds a fresh expert for it.
    fn fresh_expert(&mut self, learner: &mut Learner) -> ExpertId {
        let seed = self.rng.next_u64();
        let catalogue = &mut learner.catalogue;
        catalogue.add_expert(self.lora, self.name, seed, &self.device)
    }
}

/// What a method reads in one training step.
pub struct Step<'a> {
    /// The decoder below the experts ([`Learner::decoder`]).
    pub base: &'a Decoder,
    /// What is trained, on the autodiff device.
    pub learner: &'a Learner,
    /// Texts of the current task.
    pub batch: &'a Batch,
    /// Index of the current task.
    pub task: usize,
    /// How labels are predicted.
    pub objective: Objective,
    /// How further batches are made.
    pub collate: Collate<'a>,
    /// The LoRA dropout of this step; none where it is off.
    pub dropout: Option<LoraDropout>,
    /// Draws of the method itself.
    pub rng: ChaCha8Rng,
}

/// What a method reads once the gradient of a step is there.
pub struct AfterBackward<'a> {
    /// The decoder below the experts.
    pub base: &'a Decoder,
    /// What is trained, on the autodiff device.
    pub learner: &'a Learner,
    /// How labels are predicted.
    pub objective: Objective,
    /// How batches are made.
    pub collate: Collate<'a>,
    /// Draws of the method itself.
    pub rng: ChaCha8Rng,
}

/// A task that has taken its last step, for what a method keeps of it.
pub struct LearntTask<'a> {
    /// The decoder below the experts.
    pub base: &'a Decoder,
    /// Index of the task.
    pub task: usize,
    /// The examples that it was learnt from.
    pub examples: &'a [Example],
    /// How labels are predicted.
    pub objective: Objective,
    /// Texts per batch.
    pub batch_size: usize,
    /// How batches are made.
    pub collate: Collate<'a>,
    /// Draws of the method itself.
    pub rng: ChaCha8Rng,
}

/// The loss of one batch. Gradients flow from `total`; the parts are for the log.
pub struct Loss {
    /// What is minimised, shape `[1]`.
    pub total: Tensor<1>,
    /// Loss of the task alone, shape `[1]`, detached.
    pub task: Tensor<1>,
    /// What else the method has to say of the batch: figures by their names in [`Event::Step`](crate::events::Event::Step), shape
    /// `[1]` each, detached.
    pub figures: Vec<(&'static str, Tensor<1>)>,
}

impl Loss {
    /// The loss of the task and nothing else, shape `[1]`.
    fn of_task(loss: Tensor<1>) -> Self {
        Self {
            task: loss.clone().detach(),
            total: loss,
            figures: Vec::new(),
        }
    }

    /// The figure called `name`, shape `[1]`; none where the method does not have it.
    pub fn figure(&self, name: &str) -> Option<Tensor<1>> {
        let named = |(called, _): &&(&str, Tensor<1>)| *called == name;
        self.figures.iter().find(named).map(|(_, it)| it.clone())
    }

    /// With another term to minimise, shape `[1]`.
    fn plus(mut self, term: Tensor<1>) -> Self {
        self.total = self.total + term;
        self
    }
}

/// A continual-learning method. What a method does not say for itself is done as plain fine-tuning does it: one adapter, which every
/// task trains in turn.
pub trait Method {
    /// Name and mode for tables.
    fn name(&self) -> String;

    /// What it needs and stores, and where it comes from.
    fn card(&self) -> Card;

    /// Why no task can be added to a stream that was laid out for a number of them; none where one can.
    fn sealed(&self) -> Option<&'static str> {
        None
    }

    /// Adds to `learner` what the task needs before its first step, and who answers for it ([`Learner::tasks`]). Tasks are prepared
    /// in order, and the draws of `new.rng` alone decide the new weights, so that a task finds the same whether it was known
    /// from the start or came later. What earlier tasks are answered with must not change.
    fn prepare(&self, learner: Learner, new: NewTask<'_>) -> Learner {
        with_one_expert(learner, new)
    }

    /// Whether what the method trains besides experts and heads ([`Learner::own`]) moves while `task` is learnt.
    fn trains_own(&self, _task: usize) -> bool {
        true
    }

    /// Whether learning or answering a task reads experts besides its own and those of the task before it.
    fn reads_all_experts(&self) -> bool {
        false
    }

    /// Whether the heads of earlier tasks move while a task is learnt.
    fn trains_earlier_heads(&self) -> bool {
        false
    }

    /// Which experts answer for a text that belongs to no known task, `task` being the nearest: those that all tasks share.
    /// None where there are none; the nearest task then answers.
    fn fallback(&self, _learner: &Learner, _task: usize) -> Option<Mix> {
        None
    }

    /// How `texts` are answered for `task` by a `learner` off the autodiff device.
    fn mix(&self, _base: &Decoder, learner: &Learner, task: usize, _texts: &Texts) -> Mix {
        Mix::Routed(learner.answering(task).clone())
    }

    /// The experts and gate on which alone, besides its head, `task`'s answers stand: where none of them moves, neither do the
    /// answers. None where they stand on more.
    fn stands_on(&self, learner: &Learner, task: usize) -> Option<Routing> {
        Some(learner.answering(task).clone())
    }

    /// Tasks whose data are learnt in the stage of `task`, of a stream of `tasks`: that task alone, where the method is a continual one.
    fn stage(&self, task: usize, _tasks: usize) -> Range<usize> {
        task..task + 1
    }

    /// Forward pass and loss of one batch.
    fn loss(&self, step: Step<'_>) -> Loss {
        routed_loss(&step, step.learner.answering(step.task))
    }

    /// Changes the gradient of a step before it is clipped.
    fn constrain(&self, gradients: GradientsParams, _after: AfterBackward<'_>) -> GradientsParams {
        gradients
    }

    /// Takes from the finished task what later tasks need, and gives back the learner that goes on, on the autodiff device.
    fn finish(&mut self, learner: Learner, _learnt: LearntTask<'_>) -> Learner {
        learner
    }

    /// What [`Method::finish`] kept besides the learner, for checkpoints, in named pieces: what one task added and later ones leave
    /// alone is a piece of its own, and is stored once.
    ///
    /// # Errors
    /// When it cannot be written.
    fn memory(&self) -> io::Result<Vec<Piece>> {
        Ok(Vec::new())
    }

    /// Puts back what [`Method::memory`] gave.
    ///
    /// # Errors
    /// When a piece is not of the form that this method writes.
    fn restore(&mut self, memory: &[Piece]) -> io::Result<()> {
        match memory.first() {
            None => Ok(()),
            Some(piece) => Err(piece.foreign()),
        }
    }
}

/// A named piece of what a method remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name, unique in the method.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether a piece of this name never changes again.
    pub settled: bool,
}

impl Piece {
    /// A piece of JSON.
    fn json(name: impl Into<String>, value: &impl Serialize) -> io::Result<Self> {
        Ok(Self {
            name: name.into(),
            bytes: serde_json::to_vec(value)?,
            settled: false,
        })
    }

    /// The error of a piece that is not this method's.
    fn foreign(&self) -> io::Error {
        let message = format!("`{}` is no memory of this method", self.name);
        io::Error::new(io::ErrorKind::InvalidData, message)
    }
}

/// The one piece of JSON of a method that has no other; before its first task there is none.
///
/// # Errors
/// When there is another piece, or it is of another form.
fn only_json<T: DeserializeOwned + Default>(memory: &[Piece], name: &str) -> io::Result<T> {
    match memory {
        [] => Ok(T::default()),
        [piece] if piece.name == name => Ok(serde_json::from_slice(&piece.bytes)?),
        [piece, ..] => Err(piece.foreign()),
    }
}

/// The method that a configuration names, for a stream of `tasks` tasks.
pub fn method(config: &MethodConfig, tasks: usize) -> Box<dyn Method> {
    config.options().method(tasks)
}

/// What is written of a method in an experiment.
pub trait Options {
    /// The method before its first task, for a stream of `tasks` tasks.
    fn method(&self, tasks: usize) -> Box<dyn Method>;

    /// The numbers among the options, and the range that each has to be in.
    fn numbers(&self) -> Vec<Bounded> {
        Vec::new()
    }
}

/// A number of the `[method]` table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub value: f64,
    /// The least and the largest that it may be.
    pub range: (f64, f64),
    /// What is said of one that is not.
    pub rule: &'static str,
}

impl Bounded {
    /// Something that a term of the loss is multiplied with.
    fn weight(key: &'static str, value: f64) -> Self {
        Self {
            key,
            value,
            range: (0.0, f64::MAX),
            rule: "must be at least 0 and finite",
        }
    }

    /// A number of things.
    fn count(key: &'static str, value: usize) -> Self {
        Self {
            key,
            value: value as f64,
            range: (1.0, f64::MAX),
            rule: "must be at least 1",
        }
    }
}

/// Forward through one routing and the loss of the task: what every method without an adversary does.
fn routed_loss(step: &Step<'_>, routing: &Routing) -> Loss {
    let forward = step.learner.catalogue.forward(
        step.base,
        &step.batch.texts,
        routing,
        None,
        step.dropout.as_ref(),
    );
    loss_of_hidden(step, forward.hidden)
}

/// The loss of the task at `hidden [batch, seq, d_model]`.
fn loss_of_hidden(step: &Step<'_>, hidden: Tensor<3>) -> Loss {
    let Step {
        base,
        learner,
        batch,
        task,
        objective,
        ..
    } = *step;
    Loss::of_task(crate::objective::task_loss(
        objective, base, learner, task, hidden, batch,
    ))
}

/// The experts, those of other tasks constants, so that no gradient reaches them.
fn with_own_trained(learner: &Learner, task: usize) -> Catalogue {
    let experts = learner.trained(task).experts();
    experts.first().map_or_else(
        || learner.catalogue.clone(),
        |&own| learner.catalogue.with_others_frozen(own),
    )
}

/// One expert for the whole stream: what the methods start from that protect a single adapter.
fn with_one_expert(mut learner: Learner, mut new: NewTask<'_>) -> Learner {
    let expert = one_expert(&mut learner, &mut new);
    learner.tasks.push(TaskExperts::of(Routing::Single(expert)));
    learner
}

/// The expert that every task shares, made for the first.
fn one_expert(learner: &mut Learner, new: &mut NewTask<'_>) -> ExpertId {
    let before = learner.tasks.first();
    match before.and_then(|task| task.answering.experts().first().copied()) {
        Some(expert) => expert,
        None => new.fresh_expert(learner),
    }
}
