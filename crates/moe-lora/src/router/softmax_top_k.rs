use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{Choices, constant, values};
use super::loss::Coefficients;
use super::{Capacity, Dispatch, Phase, Priority, RouterInit, RouterLinear, Tokens};

/// What the weights of the chosen experts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopKWeights {
    /// The probabilities themselves: softmax over all experts, before the choice (OLMoE, Qwen2-MoE, Megatron's pre-softmax).
    Raw,
    /// Softmax over the chosen logits, after the choice (Mixtral, Megatron's post-softmax); the same as the probabilities divided by
    /// their sum (Qwen3-MoE). What is dropped later does not raise the rest.
    #[default]
    Chosen,
    /// The probabilities divided by the sum of those that found a place (DeepSpeed).
    Kept,
}

/// Settings of a [`SoftmaxTopK`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SoftmaxTopKConfig {
    /// Experts per token.
    #[schemars(range(min = 1, max = 4096))]
    pub top_k: usize,
    /// What their weights are.
    pub weights: TopKWeights,
    /// How many tokens an expert takes.
    pub capacity: Capacity,
    /// Who stays where there are too many.
    pub priority: Priority,
    /// Coefficient of the balance loss, over all choices.
    #[schemars(range(min = 0, max = 1e6))]
    pub balance: f64,
    /// Coefficient of the z-loss.
    #[schemars(range(min = 0, max = 1e6))]
    pub z: f64,
}

impl Default for SoftmaxTopKConfig {
    /// Weights as Mixtral's, balance as Switch's.
    fn default() -> Self {
        Self {
            top_k: 2,
            weights: TopKWeights::Chosen,
            capacity: Capacity::Unlimited,
            priority: Priority::Choice,
            balance: 1e-2,
            z: 0.0,
        }
    }
}

/// The `top_k` experts of the largest logits, weighed by their softmax (Mixtral, arXiv 2401.04088, §2.1; Megatron-Core; OLMoE; Qwen-MoE).
#[derive(Module, Debug)]
pub struct SoftmaxTopK {
    /// Its settings.
    #[module(skip)]
    pub config: SoftmaxTopKConfig,
    /// Logits of the experts.
    pub linear: RouterLinear,
}

impl SoftmaxTopK {
    /// A router with a normal start of σ = 0.02, as these models have.
    pub fn new(
        config: SoftmaxTopKConfig,
        d_model: usize,
        experts: usize,
        seed: u64,
        device: &Device,
    ) -> Self {
        let scale = 4e-4 * d_model as f64;
        let init = RouterInit::TruncatedNormal { scale, seed };
        let linear = RouterLinear::new(d_model, experts, init, device);
        Self { config, linear }
    }

    /// Routes `x [tokens, d_model]`.
    ///
    /// # Panics
    /// When `tokens` is of another number.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens, phase: Phase) -> Dispatch {
        let logits = self.linear.logits(x);
        let [count, experts] = logits.dims();
        let lots = self.config.priority.lots(phase, count * experts);
        self.route(logits, tokens, lots.as_deref())
    }

    /// Routes by `logits [tokens, experts]`; with a random priority `lots [tokens, experts]` decide, larger first.
    ///
    /// # Panics
    /// When the shapes do not belong together, or there are fewer experts than `top_k`.
    pub fn route(&self, logits: Tensor<2>, tokens: &Tokens, lots: Option<&[f32]>) -> Dispatch {
        let SoftmaxTopKConfig {
            top_k,
            weights,
            capacity,
            priority,
            balance,
            z,
        } = self.config;
        let [_, experts] = logits.dims();
        let probs = softmax(logits.clone(), 1);
        let choices = Choices::largest(&values(&logits), experts, top_k, tokens);
        let chosen = weights.of(&choices, &logits, &probs);
        let places = capacity.places(tokens.per_group(), top_k, experts);
        let slots = choices.queue(priority, places, &chosen, lots, tokens);
        let weights = weights.after(chosen, &slots);
        let losses = Coefficients { balance, z };
        let losses = losses.losses(logits, &probs, &choices.shares(top_k, tokens), tokens);
        choices.dispatch(&slots, weights, Some(probs), losses)
    }
}

impl TopKWeights {
    /// Weights before anything is dropped, `[tokens, top_k]`; `logits` and `probs [tokens, experts]`.
    pub(crate) fn of(self, choices: &Choices, logits: &Tensor<2>, probs: &Tensor<2>) -> Tensor<2> {
        match self {
            Self::Raw | Self::Kept => choices.of_table(probs.clone()),
            Self::Chosen => softmax(choices.of_table(logits.clone()), 1),
        }
    }

    /// `weights [tokens, top_k]` once it is known who has a slot.
    pub(crate) fn after(self, weights: Tensor<2>, slots: &[Option<u32>]) -> Tensor<2> {
        match self {
            Self::Raw | Self::Chosen => weights,
            Self::Kept => {
                let kept: Vec<f32> = slots
                    .iter()
                    .map(|slot| f32::from(u8::from(slot.is_some())))
                    .collect();
                let kept = weights.clone() * constant(&kept, &weights);
                let sum = kept.clone().sum_dim(1).clamp_min(f32::EPSILON); // [tokens, 1]
                kept / sum
            }
        }
    }
}
