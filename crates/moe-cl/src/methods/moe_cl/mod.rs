//! MoE-CL (arXiv 2509.18133): a shared and a dedicated LoRA expert in every feed-forward network, mixed per token by a gate;
//! a task discriminator per layer, trained against the shared expert, keeps task noise out of it.

mod adversary;

use std::io;

use burn::{module::Module, tensor::Device};
use moe_core::model::Decoder;
use moe_gan::{Discriminator, FeatureMemory};
use moe_lora::{GateInit, Mix, Observe, Routing};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Card, Finished, Loss, Method, Step};
use crate::{
    config::{DiscriminatorLoss, Experts, Gate, Mode, MoeClConfig, SharedExpert},
    data::Example,
    learner::Learner,
    objective::task_loss,
};

/// Batches of a finished task from which the feature memory is filled.
const BATCHES_TO_REMEMBER: usize = 8;

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

    /// Bank index of the shared expert that `task` uses.
    ///
    /// One shared expert drifts through the stream (index 0, followed by the dedicated ones), or each task pins its own
    /// (even indices): the next task goes on from a copy, and what earlier tasks answer with never moves again.
    fn shared(&self, task: usize) -> usize {
        match (self.options.shared, self.options.experts) {
            (SharedExpert::Drifting, _) => 0,
            (SharedExpert::Pinned, Experts::Shared) => task,
            (SharedExpert::Pinned, _) => 2 * task,
        }
    }

    fn dedicated(&self, task: usize) -> usize {
        match (self.options.shared, self.options.experts) {
            (_, Experts::Dedicated) => task,
            (SharedExpert::Drifting, _) => task + 1,
            (SharedExpert::Pinned, _) => 2 * task + 1,
        }
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

    /// The authors start gates like any linear layer; a gate per task starts undecided.
    fn gate_init(&self, rng: &mut ChaCha8Rng) -> GateInit {
        match self.options.gate {
            Gate::Shared | Gate::Frozen => GateInit::Random {
                seed: rng.next_u64(),
            },
            Gate::PerTask | Gate::Uniform => GateInit::Zeros,
        }
    }

    fn gate_is_frozen(&self, task: usize) -> bool {
        self.options.gate == Gate::Frozen && task > 0
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

    fn prepare(
        &self,
        base: &Decoder,
        mut learner: Learner,
        task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        let experts = self.options.experts;
        let adapters = &mut learner.adapters;
        if experts != Experts::Dedicated {
            if task == 0 {
                adapters.push_expert(rng.next_u64(), device);
            } else if self.options.shared == SharedExpert::Pinned {
                adapters.init_expert_from(self.shared(task - 1));
            }
        }
        if experts != Experts::Shared {
            adapters.push_expert(rng.next_u64(), device);
        }
        let needs_gate = match self.options.gate {
            Gate::Shared | Gate::Frozen => task == 0,
            Gate::PerTask => true,
            Gate::Uniform => false,
        };
        if experts == Experts::Both && needs_gate {
            adapters.push_gate(2, self.gate_init(rng), device);
        }

        let width = self.discriminator_width(task);
        if !self.has_adversary() {
            return learner;
        }
        if task == 0 {
            let (layers, d_model) = (adapters.banks.len(), base.config().d_model);
            learner.discriminators = (0..layers)
                .map(|_| Discriminator::new(d_model, width, rng, device))
                .collect();
        } else {
            for discriminator in &mut learner.discriminators {
                discriminator.grow(width);
            }
        }
        learner
    }

    fn routing(&self, task: usize) -> Routing {
        let experts = vec![self.shared(task), self.dedicated(task)];
        match (self.options.experts, self.options.gate) {
            (Experts::Shared, _) => Routing::Single(self.shared(task)),
            (Experts::Dedicated, _) => Routing::Single(self.dedicated(task)),
            (Experts::Both, Gate::Uniform) => Routing::Uniform { experts },
            (Experts::Both, Gate::Shared | Gate::Frozen) => Routing::Gated { experts, gate: 0 },
            (Experts::Both, Gate::PerTask) => Routing::Gated {
                experts,
                gate: task,
            },
        }
    }

    fn fallback(&self, task: usize) -> Option<Mix> {
        let shared = self.shared(task);
        match self.options.experts {
            Experts::Dedicated => None,
            Experts::Shared => Some(Mix::Routed(Routing::Single(shared))),
            // It never spoke alone: no dedicated expert beside it, the base has that place.
            Experts::Both => Some(Mix::BesideBase(shared)),
        }
    }

    fn trained(&self, task: usize) -> Routing {
        match self.routing(task) {
            // The experts alone.
            Routing::Gated { experts, .. } if self.gate_is_frozen(task) => {
                Routing::Uniform { experts }
            }
            routing => routing,
        }
    }

    /// `L = L_task + w · CE(F(reverse(z̄_s)))`: the paper's `L_SFT − α·L_GAN` for everything before the discriminator,
    /// and descent on `L_GAN` for the discriminator itself.
    fn loss(&self, step: Step<'_>) -> Loss {
        let Step {
            base,
            learner,
            batch,
            task,
            objective,
            dropout,
            mut rng,
            ..
        } = step;
        // With a single class there is nothing to tell apart.
        let adversarial = self.has_adversary() && self.discriminator_width(task) > 1;
        let observe = Observe {
            expert: self.shared(task),
            detach_upstream: self.options.detach_upstream,
        };
        let mut adapters = learner.adapters.clone();
        if self.gate_is_frozen(task) {
            for bank in &mut adapters.banks {
                bank.gates = bank.gates.drain(..).map(Module::no_grad).collect();
            }
        }
        let forward = adapters.forward(
            base,
            &batch.texts,
            &self.routing(task),
            adversarial.then_some(&observe),
            dropout.as_ref(),
        );
        let task_loss = task_loss(objective, base, learner, task, forward.hidden, batch);
        if !adversarial {
            return Loss::of_task(task_loss);
        }
        let adversary = self.adversary(learner, forward.pooled, task, &mut rng);
        let total = task_loss.clone() + adversary.loss.clone() * self.options.adversarial_weight;
        Loss {
            total,
            task: task_loss.detach(),
            figures: vec![
                (DISCRIMINATOR_LOSS, adversary.loss.detach()),
                ("discriminator/accuracy", adversary.accuracy),
            ],
        }
    }

    /// Takes the pooled shared features of some batches into the feature memory.
    fn finish(&mut self, learner: Learner, finished: Finished<'_>) -> Learner {
        if !self.options.feature_memory || !self.has_adversary() {
            return learner;
        }
        let Finished {
            base,
            task,
            examples,
            batch_size,
            collate,
            ..
        } = finished;
        let observe = Observe {
            expert: self.shared(task),
            detach_upstream: false,
        };
        let routing = self.routing(task);
        let d_model = base.config().d_model;
        let adapters = learner.adapters.valid();
        self.memory
            .resize_with(adapters.banks.len(), || FeatureMemory::new(d_model));
        for chunk in examples.chunks(batch_size).take(BATCHES_TO_REMEMBER) {
            let examples: Vec<&Example> = chunk.iter().collect();
            let batch = collate.batch(&examples, &base.device());
            let forward = adapters.forward(base, &batch.texts, &routing, Some(&observe), None);
            for (memory, pooled) in self.memory.iter_mut().zip(forward.pooled) {
                memory.observe(task, pooled);
            }
        }
        learner
    }

    fn memory(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&self.memory)?)
    }

    fn restore(&mut self, memory: &[u8]) -> io::Result<()> {
        self.memory = serde_json::from_slice(memory)?;
        Ok(())
    }
}
