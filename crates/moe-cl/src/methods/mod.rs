//! Continual-learning methods: one file each. A method says what a task adds, which experts answer for it,
//! and what the loss of a batch is; the forward pass is in its `loss`, in plain sight.

mod a_gem;
mod card;
mod distillation;
mod ewc;
mod importance;
mod joint;
mod linear_probe;
mod loss;
mod lwf;
mod mix_lora;
mod mocl;
mod moe_cl;
mod o_lora;
mod options;
mod own;
mod per_task;
mod piece;
mod place;
mod rehearsal;
mod replay;
mod sequential;
mod slao;

use std::{io, ops::Range};

use burn::{optim::GradientsParams, tensor::Device};
use moe_core::{config::ModelConfig, model::Decoder};
use moe_lora::{Catalogue, ExpertId, LoraConfig, LoraDropout, Mix, Routing, Texts};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

pub use a_gem::{AGem, dot, project};
pub use card::Card;
pub use distillation::{distillation, divergence};
pub use ewc::{Ewc, EwcConfig, EwcMode, fisher};
pub use importance::{Anchor, Importance, penalty};
pub use joint::Joint;
pub use linear_probe::LinearProbe;
pub use loss::Loss;
use loss::{loss_of, loss_of_hidden, routed_loss};
pub use lwf::{Lwf, LwfConfig};
pub use mix_lora::{MixLora, MixLoraConfig};
pub use mocl::Mocl;
pub use moe_cl::{
    DISCRIMINATOR_LOSS, DiscriminatorLoss, Experts, Gate, Mode, MoeCl, MoeClConfig, SharedExpert,
};
pub use o_lora::{OLora, OLoraConfig, OLoraTest, overlap};
pub use options::{Options, method};
pub use own::{Own, OwnForm};
pub use per_task::PerTask;
pub use piece::Piece;
use piece::only_json;
pub use place::Place;
pub use rehearsal::{Kept, RehearsalConfig, Reservoir};
pub use replay::Replay;
pub use sequential::{Sequential, SequentialConfig, Weights};
pub use slao::Slao;

use crate::{
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
    /// Which part of its optimiser step the batch is.
    pub place: Place,
    /// Index of the current task.
    pub task: usize,
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
    /// Texts per batch.
    pub batch_size: usize,
    /// How batches are made.
    pub collate: Collate<'a>,
    /// Draws of the method itself.
    pub rng: ChaCha8Rng,
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

    /// Whether it has LoRA experts, so that `[adapters]` says something.
    fn adapts(&self) -> bool {
        true
    }

    /// Whether it can work on such a base.
    ///
    /// # Errors
    /// When an option does not fit the base.
    fn check(&self, _base: &ModelConfig) -> moe_lora::Result<()> {
        Ok(())
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

    /// Forward pass and loss of one batch: its part of the loss of its optimiser step ([`Place`]).
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
