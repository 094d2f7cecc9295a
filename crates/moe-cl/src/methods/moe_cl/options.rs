//! The options of MoE-CL: a mode, and what may be changed in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MoeCl;
use crate::methods::{Method, Options};

/// Whose mathematics MoE-CL follows. The mode is nothing but a set of defaults for the other options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The authors' code, departures from their paper included.
    Paper,
    /// This project's corrections.
    #[default]
    Improved,
}

/// How many gates a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// One for all tasks; later tasks move it.
    Shared,
    /// One per task, frozen when its task ends.
    PerTask,
    /// One for all tasks, learnt with the first and frozen from then on.
    Frozen,
    /// None: the experts weigh the same.
    Uniform,
}

/// Which experts of MoE-CL there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Experts {
    /// A shared one and a dedicated one per task.
    #[default]
    Both,
    /// The shared one alone (ablation): no gate.
    Shared,
    /// The dedicated ones alone (ablation): no gate and no discriminator.
    Dedicated,
}

/// What becomes of the shared expert when a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SharedExpert {
    /// Later tasks go on training it, and earlier tasks answer with what it has become.
    Drifting,
    /// It is kept as it is for the tasks learnt so far, and the next task goes on from a copy.
    Pinned,
}

/// What the discriminator's cross-entropy is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscriminatorLoss {
    /// Of probabilities, which it takes for logits: the softmax is applied twice (the authors' code).
    Paper,
    /// Of logits.
    Logits,
}

/// The options of MoE-CL, all resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "MoeClOptions")]
pub struct MoeClConfig {
    /// Whose mathematics is followed.
    pub mode: Mode,
    /// Which experts there are.
    pub experts: Experts,
    /// Weight of the adversarial loss, the paper's α (its equation of the total loss).
    #[schemars(range(min = 0, max = 1e6))]
    pub adversarial_weight: f64,
    /// How many gates a layer has.
    pub gate: Gate,
    /// What becomes of the shared expert when a task ends.
    pub shared: SharedExpert,
    /// What the discriminator's cross-entropy is taken of.
    pub discriminator_loss: DiscriminatorLoss,
    /// Keep the adversarial gradient to the shared expert of its own layer.
    pub detach_upstream: bool,
    /// Let the discriminator see every task: stand-ins drawn from the statistics of earlier tasks' features.
    pub feature_memory: bool,
}

/// The options of MoE-CL as they are written: what is left out comes from the mode.
#[derive(Deserialize, JsonSchema)]
struct MoeClOptions {
    /// Whose mathematics is followed: sets the defaults of the other options.
    #[serde(default)]
    mode: Mode,
    /// Which experts there are; fewer than both for ablations.
    #[serde(default)]
    experts: Experts,
    /// Weight of the adversarial loss; 0: no discriminator. Default: 0.1.
    #[schemars(range(min = 0, max = 1e6))]
    adversarial_weight: Option<f64>,
    /// How many gates a layer has. Default: shared (paper), per_task (improved).
    gate: Option<Gate>,
    /// What becomes of the shared expert when a task ends. Default: drifting (paper), pinned (improved).
    shared: Option<SharedExpert>,
    /// What the discriminator's cross-entropy is taken of. Default: paper (paper), logits (improved).
    discriminator_loss: Option<DiscriminatorLoss>,
    /// Keep the adversarial gradient to the shared expert of its own layer. Default: false (paper), true (improved).
    detach_upstream: Option<bool>,
    /// Show the discriminator stand-ins of earlier tasks' features. Default: false (paper), true (improved).
    feature_memory: Option<bool>,
}

impl Default for MoeClConfig {
    fn default() -> Self {
        Self::of(Mode::default())
    }
}

impl MoeClConfig {
    /// The defaults of a mode.
    pub fn of(mode: Mode) -> Self {
        let improved = mode == Mode::Improved;
        Self {
            mode,
            experts: Experts::Both,
            adversarial_weight: 0.1,
            gate: if improved {
                Gate::PerTask
            } else {
                Gate::Shared
            },
            shared: if improved {
                SharedExpert::Pinned
            } else {
                SharedExpert::Drifting
            },
            discriminator_loss: if improved {
                DiscriminatorLoss::Logits
            } else {
                DiscriminatorLoss::Paper
            },
            detach_upstream: improved,
            feature_memory: improved,
        }
    }
}

impl From<MoeClOptions> for MoeClConfig {
    fn from(options: MoeClOptions) -> Self {
        let default = Self::of(options.mode);
        Self {
            mode: options.mode,
            experts: options.experts,
            adversarial_weight: options
                .adversarial_weight
                .unwrap_or(default.adversarial_weight),
            gate: options.gate.unwrap_or(default.gate),
            shared: options.shared.unwrap_or(default.shared),
            discriminator_loss: options
                .discriminator_loss
                .unwrap_or(default.discriminator_loss),
            detach_upstream: options.detach_upstream.unwrap_or(default.detach_upstream),
            feature_memory: options.feature_memory.unwrap_or(default.feature_memory),
        }
    }
}

impl From<DiscriminatorLoss> for moe_gan::DiscriminatorLoss {
    fn from(loss: DiscriminatorLoss) -> Self {
        match loss {
            DiscriminatorLoss::Paper => Self::Paper,
            DiscriminatorLoss::Logits => Self::Logits,
        }
    }
}

impl Options for MoeClConfig {
    fn method(&self, tasks: usize) -> Box<dyn Method> {
        Box::new(MoeCl::new(self.clone(), tasks))
    }
}
