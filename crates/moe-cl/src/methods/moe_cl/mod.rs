//! MoE-CL (arXiv 2509.18133): a shared and a dedicated LoRA expert in every feed-forward network, mixed per token by a gate;
//! a task discriminator per layer, trained against the shared expert, keeps task noise out of it.

mod adversary;
mod memory;
mod options;

use std::io;

use moe_gan::{Discriminator, FeatureMemory};
use moe_lora::{ExpertId, Gate as TaskGate, GateId, GateInit, Mix, Observe, Routing};
use rand::Rng;

use super::{Card, LearntTask, Loss, Method, NewTask, Own, Piece, Step, loss_of_hidden};
pub use options::{DiscriminatorLoss, Experts, Gate, Mode, MoeClConfig, SharedExpert};

use crate::learner::{Learner, TaskExperts};

/// Name of the figure that the discriminators minimise: their mean cross-entropy.
pub const DISCRIMINATOR_LOSS: &str = "discriminator/loss";

/// The method, in the paper's form or the improved one, as its options say.
pub struct MoeCl {
    options: MoeClConfig,
    /// Tasks of the whole stream: the width that the paper's discriminator has from the start.
    tasks: usize,
    /// Per adapted layer: pooled shared features of the finished tasks.
    memory: Vec<FeatureMemory>,
}

impl MoeCl {
    /// The method before its first task, for a stream of `tasks` tasks.
    pub fn new(options: MoeClConfig, tasks: usize) -> Self {
        Self {
            options,
            tasks,
            memory: Vec::new(),
        }
    }

    /// The shared expert that `task` answers with, the first of its routing.
    ///
    /// One shared expert drifts through the stream, or each task pins its own: the next task goes on from a copy, and what
    /// earlier tasks answer with never moves again.
    fn shared(&self, learner: &Learner, task: usize) -> ExpertId {
        learner.answering(task).experts()[0]
    }

    /// The shared expert for a new task; none where there are only dedicated ones.
    fn add_shared(&self, learner: &mut Learner, new: &mut NewTask<'_>) -> Option<ExpertId> {
        if self.options.experts == Experts::Dedicated {
            return None;
        }
        let Some(before) = new.task.checked_sub(1) else {
            return Some(new.fresh_expert(learner));
        };
        let before = self.shared(learner, before);
        Some(match self.options.shared {
            SharedExpert::Drifting => before,
            SharedExpert::Pinned => learner.catalogue.copy_expert(before, new.name),
        })
    }

    /// The gate for a new task; none where experts weigh the same.
    fn add_gate(&self, learner: &mut Learner, new: &mut NewTask<'_>) -> Option<GateId> {
        let only = learner.catalogue.gates().first().map(TaskGate::id);
        let init = match (self.options.gate, only) {
            (Gate::Uniform, _) => return None,
            (Gate::Shared | Gate::Frozen, Some(gate)) => return Some(gate),
            // The authors start gates like any linear layer; a gate per task starts undecided.
            (Gate::Shared | Gate::Frozen, None) => GateInit::Random {
                seed: new.rng.next_u64(),
            },
            (Gate::PerTask, _) => GateInit::Zeros,
        };
        let catalogue = &mut learner.catalogue;
        Some(catalogue.add_gate(2, init, new.name, &new.device))
    }

    /// Whether there is a shared expert with a discriminator against it. Without one, nothing is built, stored or computed.
    fn has_adversary(&self) -> bool {
        self.options.adversarial_weight > 0.0 && self.options.experts != Experts::Dedicated
    }

    /// What is missing against the whole method, for its name.
    fn ablations(&self) -> impl Iterator<Item = &'static str> {
        let options = &self.options;
        let experts = match options.experts {
            Experts::Both => None,
            Experts::Shared => Some("shared expert only"),
            Experts::Dedicated => Some("dedicated experts only"),
        };
        let gated = options.experts == Experts::Both;
        let gate = match options.gate {
            Gate::Uniform if gated => Some("uniform gate"),
            Gate::Frozen if gated => Some("frozen gate"),
            _ => None,
        };
        let adversary = (options.experts != Experts::Dedicated && !self.has_adversary())
            .then_some("no discriminator");
        [experts, gate, adversary].into_iter().flatten()
    }

    fn gate_is_frozen(&self, task: usize) -> bool {
        self.options.gate == Gate::Frozen && task > 0
    }

    /// A discriminator per layer that tells the tasks so far apart, grown from those that there were.
    fn discriminators(&self, before: Option<Own>, layers: usize, mut new: NewTask<'_>) -> Own {
        let width = self.discriminator_width(new.task);
        let d_model = new.base.config().d_model;
        let all = match before {
            Some(Own::Discriminators(mut all)) => {
                all.iter_mut().for_each(|it| it.grow(width));
                all
            }
            _ => (0..layers)
                .map(|_| Discriminator::new(d_model, width, &mut new.rng, &new.device))
                .collect(),
        };
        Own::Discriminators(all).identified()
    }

    /// Classes of the discriminator while `task` is learnt.
    fn discriminator_width(&self, task: usize) -> usize {
        match self.options.discriminator_loss {
            DiscriminatorLoss::Paper => self.tasks,
            DiscriminatorLoss::Logits => task + 1,
        }
    }
}

impl Method for MoeCl {
    fn name(&self) -> String {
        let mode = match self.options.mode {
            Mode::Paper => "paper",
            Mode::Improved => "improved",
        };
        let changed: String = self.ablations().map(|part| format!(", {part}")).collect();
        format!("moe_cl ({mode}{changed})")
    }

    fn card(&self) -> Card {
        Card {
            what: "a shared and a dedicated expert, a gate, an adversary",
            needs: "task id",
            stores: "two experts, a gate, feature statistics (paper: an expert)",
            source: "arXiv 2509.18133",
            strength: "adversarial_weight 0.1, as published",
        }
    }

    fn sealed(&self) -> Option<&'static str> {
        let as_wide =
            self.has_adversary() && self.options.discriminator_loss == DiscriminatorLoss::Paper;
        as_wide.then_some("the paper's discriminator is as wide as the stream from the start")
    }

    fn prepare(&self, mut learner: Learner, mut new: NewTask<'_>) -> Learner {
        let shared = self.add_shared(&mut learner, &mut new);
        let dedicated = match self.options.experts {
            Experts::Shared => None,
            Experts::Both | Experts::Dedicated => Some(new.fresh_expert(&mut learner)),
        };
        let answering = match (shared, dedicated) {
            (Some(shared), Some(dedicated)) => {
                let experts = vec![shared, dedicated];
                match self.add_gate(&mut learner, &mut new) {
                    Some(gate) => Routing::Gated { experts, gate },
                    None => Routing::Uniform { experts },
                }
            }
            (one, other) => Routing::Single(one.or(other).expect("there is an expert")),
        };
        let mut experts = TaskExperts::of(answering);
        if self.gate_is_frozen(new.task) {
            // The experts alone.
            experts.trained = Routing::Uniform {
                experts: experts.answering.experts().to_vec(),
            };
        }
        learner.tasks.push(experts);
        if self.has_adversary() {
            let before = learner.own;
            let layers = learner.catalogue.layers().len();
            learner.own = Some(self.discriminators(before, layers, new));
        }
        learner
    }

    /// With a single class there is nothing to tell apart.
    fn trains_own(&self, task: usize) -> bool {
        self.has_adversary() && self.discriminator_width(task) > 1
    }

    fn fallback(&self, learner: &Learner, task: usize) -> Option<Mix> {
        let shared = self.shared(learner, task);
        match self.options.experts {
            Experts::Dedicated => None,
            Experts::Shared => Some(Mix::Routed(Routing::Single(shared))),
            // It never spoke alone: no dedicated expert beside it, the base has that place.
            Experts::Both => Some(Mix::BesideBase(shared)),
        }
    }

    /// `L = L_task + w · CE(F(reverse(z̄_s)))`: the paper's `L_SFT − α·L_GAN` for everything before the discriminator,
    /// and descent on `L_GAN` for the discriminator itself.
    fn loss(&self, step: Step<'_>) -> Loss {
        let Step { learner, task, .. } = step;
        let adversarial = self.trains_own(task);
        let observe = Observe {
            expert: self.shared(learner, task),
            detach_upstream: self.options.detach_upstream,
        };
        let mut catalogue = learner.catalogue.clone();
        if self.gate_is_frozen(task) {
            catalogue = catalogue.with_gates_frozen();
        }
        let forward = catalogue.forward(
            step.base,
            &step.batch.texts,
            learner.answering(task),
            adversarial.then_some(&observe),
            step.dropout.as_ref(),
        );
        let loss = loss_of_hidden(&step, forward.hidden);
        if !adversarial {
            return loss;
        }
        let adversary = self.adversary(step, forward.pooled);
        Loss {
            figures: vec![
                (DISCRIMINATOR_LOSS, adversary.loss.clone().detach()),
                ("discriminator/accuracy", adversary.accuracy),
            ],
            ..loss.plus(adversary.loss * self.options.adversarial_weight)
        }
    }

    fn finish(&mut self, learner: Learner, learnt: LearntTask<'_>) -> Learner {
        if self.options.feature_memory && self.has_adversary() {
            self.observe(&learner, learnt);
        }
        learner
    }

    fn memory(&self) -> io::Result<Vec<Piece>> {
        Ok(self.pieces())
    }

    fn restore(&mut self, memory: &[Piece]) -> io::Result<()> {
        self.memory.clear();
        for piece in memory {
            self.remember(piece).ok_or_else(|| piece.foreign())?;
        }
        Ok(())
    }
}
