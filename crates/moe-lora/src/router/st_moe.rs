use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{Choices, values};
use super::draws::{self, Draw, jittered};
use super::loss::Coefficients;
use super::queue::Order;
use super::{Capacity, Dispatch, Phase, RouterInit, RouterLinear, Tokens};

/// Which first choices make the shares of ST-MoE's balance loss; either are shares of the group's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FirstChoices {
    /// All of them, as in Switch Transformers and Mesh TensorFlow.
    #[default]
    All,
    /// Those that found a place, as in st-moe-pytorch: no share is above the capacity's, and the loss is below 1 where tokens are dropped.
    Kept,
}

/// Settings of a [`StMoe`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StMoeConfig {
    /// Experts per token at most.
    #[schemars(range(min = 1, max = 4096))]
    pub top_n: usize,
    /// A further expert is used with probability `min(1, gate / threshold)` while training, and where its gate is above the threshold
    /// while evaluating. At 0 it is always used.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub threshold: f64,
    /// While training.
    pub capacity: Capacity,
    /// While evaluating.
    pub eval_capacity: Capacity,
    /// Of the input, `1 ± jitter` while training.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub jitter: f64,
    /// Coefficient of the balance loss.
    #[schemars(range(min = 0, max = 1e6))]
    pub balance: f64,
    /// Which first choices it counts.
    pub balance_over: FirstChoices,
    /// Coefficient of the z-loss.
    #[schemars(range(min = 0, max = 1e6))]
    pub z: f64,
}

impl Default for StMoeConfig {
    /// As in the paper; the threshold is Mesh TensorFlow's.
    fn default() -> Self {
        Self {
            top_n: 2,
            threshold: 0.2,
            capacity: Capacity::factor(1.25),
            eval_capacity: Capacity::factor(2.0),
            jitter: 0.0,
            balance: 1e-2,
            balance_over: FirstChoices::All,
            z: 1e-3,
        }
    }
}

/// The best `top_n` experts per token, the further ones by chance, kept stable by the z-loss (ST-MoE, arXiv 2202.08906, §3).
///
/// `p = softmax(x W)`; the weights are the chosen probabilities over their sum, before any is left out or dropped: what is
/// left out does not raise the rest.
#[derive(Module, Debug)]
pub struct StMoe {
    /// Its settings.
    #[module(skip)]
    pub config: StMoeConfig,
    /// Logits of the experts.
    pub linear: RouterLinear,
}

impl StMoe {
    /// A router with Switch's start, `σ = √(0.1 / d_model)`.
    pub fn new(
        config: StMoeConfig,
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
    /// When `tokens` is of another number, or there are fewer experts than `top_n`.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens, phase: Phase) -> Dispatch {
        let logits = self.linear.logits(jittered(x, self.config.jitter, phase));
        let numbers = tokens.count() * self.config.top_n;
        match phase {
            Phase::Train { seed } => {
                let chance = draws::uniform(seed, Draw::Second, numbers);
                self.route(logits, tokens, self.config.capacity, &chance)
            }
            // `gate / threshold > 1`: where it is likelier than the threshold.
            Phase::Evaluate => {
                let certain = vec![1.0; numbers];
                self.route(logits, tokens, self.config.eval_capacity, &certain)
            }
        }
    }

    /// Routes by `logits [tokens, experts]`; choice `j > 0` of a token is used where `chance [top_n, tokens] < gate_j / threshold`.
    ///
    /// # Panics
    /// When the shapes do not belong together, or there are fewer experts than `top_n`.
    pub fn route(
        &self,
        logits: Tensor<2>,
        tokens: &Tokens,
        capacity: Capacity,
        chance: &[f32],
    ) -> Dispatch {
        let StMoeConfig {
            top_n, threshold, ..
        } = self.config;
        let [count, experts] = logits.dims();
        assert_eq!(chance.len(), count * top_n, "a number per choice");
        let probs = softmax(logits.clone(), 1);
        let mut choices = Choices::largest(&values(&logits), experts, top_n, tokens);
        let weights = softmax(choices.of_table(logits.clone()), 1); // [tokens, top_n], as p over its sum
        let gates = match threshold > 0.0 {
            true => values(&weights),
            false => Vec::new(),
        };
        for (choice, gate) in gates.into_iter().enumerate() {
            let (token, rank) = (choice / top_n, choice % top_n);
            if rank > 0 {
                let used = f64::from(chance[rank * count + token]) < f64::from(gate) / threshold;
                choices.stands[choice] &= used;
            }
        }
        let places = capacity.places(tokens.per_group(), top_n, experts);
        let slots = choices.admit(Order::Choice, places, tokens);
        let shares = match self.config.balance_over {
            FirstChoices::All => choices.shares(1, tokens),
            FirstChoices::Kept => kept_shares(&choices, &slots, tokens),
        };
        let losses = Coefficients {
            balance: self.config.balance,
            z: self.config.z,
        };
        let losses = losses.losses(logits, &probs, &shares, tokens);
        choices.dispatch(&slots, weights, Some(probs), losses)
    }
}

/// `[groups, experts]`, the share of a group's real tokens that are at the expert they chose first.
fn kept_shares(choices: &Choices, slots: &[Option<u32>], tokens: &Tokens) -> Vec<f64> {
    let kept = choices.counts(tokens, |choice| {
        choice % choices.top_k == 0 && slots[choice].is_some()
    });
    let groups = kept
        .chunks(choices.num_experts)
        .zip(tokens.real_per_group());
    groups
        .flat_map(|(kept, real)| {
            let share = move |&count: &u32| f64::from(count) / real.max(1) as f64;
            kept.iter().map(share)
        })
        .collect()
}
