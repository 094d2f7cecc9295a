//! The `[method]` table: the continual-learning method, chosen by `name`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EwcConfig, LwfConfig, OLoraConfig, RehearsalConfig, SequentialConfig};

/// The continual-learning method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum MethodConfig {
    /// MoE-CL (arXiv 2509.18133): a shared and a dedicated LoRA expert, a gate, an adversarial task discriminator.
    #[schemars(extend("unevaluatedProperties" = false))]
    MoeCl(MoeClConfig),
    /// Everything is trained through all tasks without protection: the baseline that forgets.
    #[schemars(extend("unevaluatedProperties" = false))]
    Sequential(SequentialConfig),
    /// One adapter per task, trained alone: forgets nothing, shares nothing.
    PerTask,
    /// O-LoRA (arXiv 2310.14152): an adapter per task, in a subspace orthogonal to the earlier ones.
    #[schemars(extend("unevaluatedProperties" = false))]
    OLora(OLoraConfig),
    /// MoCL (arXiv 2404.00228): an adapter per task, weighed for every text by its likeness to the tasks.
    Mocl,
    /// Elastic weight consolidation (arXiv 1612.00796): one adapter, held where it matters to earlier tasks.
    #[schemars(extend("unevaluatedProperties" = false))]
    Ewc(EwcConfig),
    /// Learning without forgetting (arXiv 1606.09282): one adapter, held to its own earlier outputs.
    #[schemars(extend("unevaluatedProperties" = false))]
    Lwf(LwfConfig),
    /// Experience replay: one adapter, trained on a reservoir of earlier examples as well.
    #[schemars(extend("unevaluatedProperties" = false))]
    Replay(RehearsalConfig),
    /// A-GEM (arXiv 1812.00420): one adapter, whose steps never oppose the gradient on earlier examples.
    #[schemars(extend("unevaluatedProperties" = false))]
    AGem(RehearsalConfig),
    /// SLAO (arXiv 2512.23017): one adapter, merged with each task's own as 1/√t.
    Slao,
    /// One adapter trained on all tasks' data together: the upper bound, and no continual learning.
    Joint,
    /// A head per task on the untouched base: what its features hold already.
    LinearProbe,
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self::MoeCl(MoeClConfig::of(Mode::Improved))
    }
}

/// A number of the `[method]` table: its key, its value, and the range that it has to be in.
pub(super) type Bounded = (&'static str, f64, (f64, f64), &'static str);

impl MethodConfig {
    /// Every method with its default options, in the order of the variants.
    ///
    /// # Panics
    /// When a method has an option without a default.
    pub fn all() -> Vec<Self> {
        let schema = serde_json::Value::from(schemars::schema_for!(Self));
        let variants = schema["oneOf"].as_array().into_iter().flatten();
        variants
            .map(|variant| {
                let name = &variant["properties"]["name"]["const"];
                serde_json::from_value(serde_json::json!({ "name": name }))
                    .expect("every option of a method has a default")
            })
            .collect()
    }

    /// The numbers among the options.
    pub(super) fn numbers(&self) -> Vec<Bounded> {
        const WEIGHT: ((f64, f64), &str) = ((0.0, f64::MAX), "must be at least 0 and finite");
        const COUNT: ((f64, f64), &str) = ((1.0, f64::MAX), "must be at least 1");
        let number =
            |key, value, (range, rule): ((f64, f64), &'static str)| (key, value, range, rule);
        match self {
            Self::MoeCl(options) => vec![number(
                "method.adversarial_weight",
                options.adversarial_weight,
                WEIGHT,
            )],
            Self::OLora(options) => vec![number("method.lambda", options.lambda, WEIGHT)],
            Self::Ewc(options) => vec![
                number("method.lambda", options.lambda, WEIGHT),
                number(
                    "method.decay",
                    options.decay,
                    ((0.0, 1.0), "must be between 0 and 1"),
                ),
                number(
                    "method.fisher_examples",
                    options.fisher_examples as f64,
                    COUNT,
                ),
            ],
            Self::Lwf(options) => vec![
                number("method.lambda", options.lambda, WEIGHT),
                number(
                    "method.temperature",
                    options.temperature,
                    ((f64::MIN_POSITIVE, f64::MAX), "must be above 0 and finite"),
                ),
            ],
            Self::Replay(options) | Self::AGem(options) => vec![
                number("method.budget", options.budget as f64, COUNT),
                number("method.batch_size", options.batch_size as f64, COUNT),
            ],
            Self::Sequential(_)
            | Self::PerTask
            | Self::Mocl
            | Self::Slao
            | Self::Joint
            | Self::LinearProbe => Vec::new(),
        }
    }
}

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
