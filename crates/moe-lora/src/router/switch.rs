use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{Choices, values};
use super::draws::jittered;
use super::loss::Coefficients;
use super::{Capacity, Dispatch, Phase, Priority, RouterInit, RouterLinear, Tokens};

/// Settings of a [`Switch`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SwitchConfig {
    /// While training.
    pub capacity: Capacity,
    /// While evaluating.
    pub eval_capacity: Capacity,
    /// Who stays where there are too many.
    pub priority: Priority,
    /// Of the input, `1 ± jitter` while training.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub jitter: f64,
    /// α of the balance loss.
    #[schemars(range(min = 0, max = 1e6))]
    pub balance: f64,
    /// Coefficient of the z-loss, which the paper has not.
    #[schemars(range(min = 0, max = 1e6))]
    pub z: f64,
}

impl Default for SwitchConfig {
    /// As in the paper.
    fn default() -> Self {
        Self {
            capacity: Capacity::factor(1.25),
            eval_capacity: Capacity::factor(2.0),
            priority: Priority::Choice,
            jitter: 1e-2,
            balance: 1e-2,
            z: 0.0,
        }
    }
}

/// One expert per token, weighed by its probability (Switch Transformers, arXiv 2101.03961, §2).
///
/// `p = softmax(x W)`, `y = p_i E_i(x)` with `i = argmax p`; tokens that find no place are dropped.
#[derive(Module, Debug)]
pub struct Switch {
    /// Its settings.
    #[module(skip)]
    pub config: SwitchConfig,
    /// Logits of the experts.
    pub linear: RouterLinear,
}

impl Switch {
    /// A router with the paper's start, `σ = √(0.1 / d_model)`.
    pub fn new(
        config: SwitchConfig,
        d_model: usize,
        experts: usize,
        seed: u64,
        device: &Device,
    ) -> Self {
        let init = RouterInit::TruncatedNormal { scale: 0.1, seed };
        let linear = RouterLinear::new(d_model, experts, init, device);
        Self { config, linear }
    }

    /// Routes `x [tokens, d_model]`.
    ///
    /// # Panics
    /// When `tokens` is of another number.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens, phase: Phase) -> Dispatch {
        let logits = self.linear.logits(jittered(x, self.config.jitter, phase));
        let [count, experts] = logits.dims();
        let capacity = match phase {
            Phase::Train { .. } => self.config.capacity,
            Phase::Evaluate => self.config.eval_capacity,
        };
        let lots = self.config.priority.lots(phase, count * experts);
        self.route(logits, tokens, capacity, lots.as_deref())
    }

    /// Routes by `logits [tokens, experts]`; with a random priority `lots [tokens, experts]` decide, larger first.
    ///
    /// # Panics
    /// When the shapes do not belong together.
    pub fn route(
        &self,
        logits: Tensor<2>,
        tokens: &Tokens,
        capacity: Capacity,
        lots: Option<&[f32]>,
    ) -> Dispatch {
        let [_, experts] = logits.dims();
        let probs = softmax(logits.clone(), 1);
        let choices = Choices::largest(&values(&logits), experts, 1, tokens);
        let places = capacity.places(tokens.per_group(), 1, experts);
        let weights = choices.of_table(probs.clone());
        let slots = choices.queue(self.config.priority, places, &weights, lots, tokens);
        let losses = Coefficients {
            balance: self.config.balance,
            z: self.config.z,
        };
        let losses = losses.losses(logits, &probs, &choices.shares(1, tokens), tokens);
        choices.dispatch(&slots, weights, Some(probs), losses)
    }
}
