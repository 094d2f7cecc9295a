use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{Choices, values};
use super::loss::Coefficients;
use super::queue::Order;
use super::{Dispatch, RouterInit, RouterLinear, Tokens};

/// Groups of experts, of which a token sees the best alone (DeepSeek-V3's node-limited routing, arXiv 2412.19437, §2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpertGroups {
    /// How many groups the experts are cut into, side by side.
    #[schemars(range(min = 1, max = 4096))]
    pub groups: usize,
    /// Groups per token.
    #[schemars(range(min = 1, max = 4096))]
    pub top_groups: usize,
}

/// Settings of a [`BiasBalanced`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BiasBalancedConfig {
    /// Experts per token.
    #[schemars(range(min = 1, max = 4096))]
    pub top_k: usize,
    /// Nothing: a token may go to any expert.
    pub grouped: Option<ExpertGroups>,
    /// Whether the weights of a token are divided by their sum.
    pub normalize: bool,
    /// What the weights are multiplied by at the end.
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
    pub scale: f64,
    /// γ, how far a bias moves at a time.
    #[schemars(range(min = 0, max = 1e6))]
    pub rate: f64,
    /// Coefficient of the balance loss within each group of tokens (eq. 17: a sequence), over `s / Σ s`.
    #[schemars(range(min = 0, max = 1e6))]
    pub balance: f64,
}

impl Default for BiasBalancedConfig {
    /// DeepSeek-V3's, without its groups.
    fn default() -> Self {
        Self {
            top_k: 8,
            grouped: None,
            normalize: true,
            scale: 2.5,
            rate: 1e-3,
            balance: 0.0,
        }
    }
}

/// Balanced by a bias in place of a loss (Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3, arXiv 2412.19437, eq. 12–16).
///
/// `s = σ(x W)`; the experts are those of the largest `s + b`, the weights are their `s`. The bias has no gradient: between two
/// steps the caller moves it by [`Self::rebalanced`], from the loads of whichever steps and ranks it likes.
#[derive(Module, Debug)]
pub struct BiasBalanced {
    /// Its settings.
    #[module(skip)]
    pub config: BiasBalancedConfig,
    /// Logits of the experts.
    pub linear: RouterLinear,
    /// `b [experts]`.
    pub bias: Param<Tensor<1>>,
}

/// How a bias follows the loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// `b_e += γ sign(mean load − load_e)` (algorithm 1 of the paper; Megatron-Core).
    Paper,
    /// The same steps less their mean, so that the biases do not drift together (torchtitan).
    Centred,
}

impl BiasBalanced {
    /// A router with a normal start of σ = 0.006 (DeepSeek-V3, §4.2) and no bias.
    pub fn new(
        config: BiasBalancedConfig,
        d_model: usize,
        experts: usize,
        seed: u64,
        device: &Device,
    ) -> Self {
        let scale = 3.6e-5 * d_model as f64;
        let init = RouterInit::TruncatedNormal { scale, seed };
        let linear = RouterLinear::new(d_model, experts, init, device);
        Self::from_parts(config, linear, Tensor::zeros([experts], device))
    }

    /// From logits and `bias [experts]`.
    ///
    /// # Panics
    /// When there is not one bias per expert.
    pub fn from_parts(config: BiasBalancedConfig, linear: RouterLinear, bias: Tensor<1>) -> Self {
        assert_eq!(bias.dims(), [linear.experts()], "one bias per expert");
        Self {
            config,
            linear,
            bias: Param::from_tensor(bias.detach()).set_require_grad(false),
        }
    }

    /// Routes `x [tokens, d_model]`.
    ///
    /// # Panics
    /// When `tokens` is of another number, or there are fewer experts than `top_k` in the groups that a token sees.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens) -> Dispatch {
        self.route(self.linear.logits(x), tokens)
    }

    /// Routes by `logits [tokens, experts]`.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn route(&self, logits: Tensor<2>, tokens: &Tokens) -> Dispatch {
        let BiasBalancedConfig { top_k, scale, .. } = self.config;
        let [_, experts] = logits.dims();
        let scores = sigmoid(logits.clone());
        let mut biased = values(&scores);
        let bias: Vec<f32> = self.bias.val().into_data().iter::<f32>().collect();
        for row in biased.chunks_mut(experts) {
            for (score, bias) in row.iter_mut().zip(&bias) {
                *score += bias;
            }
            if let Some(groups) = self.config.grouped {
                groups.mask(row, top_k);
            }
        }
        let choices = Choices::largest(&biased, experts, top_k, tokens);
        let chosen = choices.of_table(scores.clone()); // [tokens, top_k]
        let weights = match self.config.normalize {
            true => chosen.clone() / (chosen.sum_dim(1) + 1e-20),
            false => chosen,
        };
        let slots = choices.admit(Order::Position, None, tokens);
        let losses = Coefficients {
            balance: self.config.balance,
            z: 0.0,
        };
        let shares = scores.clone() / (scores.clone().sum_dim(1) + 1e-20);
        let losses = losses.losses(logits, &shares, &choices.shares(top_k, tokens), tokens);
        choices.dispatch(&slots, weights * scale, Some(scores), losses)
    }

    /// The same router, its bias moved by one step against `load [experts]`, tokens that each expert was chosen for.
    ///
    /// # Panics
    /// When there is not one load per expert.
    #[must_use]
    pub fn rebalanced(&self, load: &[f64], how: Rebalance) -> Self {
        let bias = self.bias.val();
        let [experts] = bias.dims();
        assert_eq!(load.len(), experts, "one load per expert");
        let mean = load.iter().sum::<f64>() / experts as f64;
        let mut steps: Vec<f64> = load
            .iter()
            .map(|&load| match mean - load {
                0.0 => 0.0,
                short => self.config.rate * short.signum(),
            })
            .collect();
        if how == Rebalance::Centred {
            let mean = steps.iter().sum::<f64>() / experts as f64;
            steps.iter_mut().for_each(|step| *step -= mean);
        }
        let steps: Vec<f32> = steps.into_iter().map(|step| step as f32).collect();
        let moved = bias.detach() + Tensor::from_data(steps.as_slice(), &self.bias.val().device());
        Self {
            bias: Param::initialized(self.bias.id, moved.set_require_grad(false)),
            ..self.clone()
        }
    }
}

impl ExpertGroups {
    /// Takes the experts of all but the best groups out of `row [experts]`; a group is as good as its best two together.
    fn mask(self, row: &mut [f32], top_k: usize) {
        let size = row.len() / self.groups;
        assert!(
            size * self.groups == row.len() && (1..=self.groups).contains(&self.top_groups),
            "{} of {} groups of {} experts",
            self.top_groups,
            self.groups,
            row.len()
        );
        assert!(
            top_k <= size * self.top_groups,
            "top_k = {top_k} of {} experts in reach",
            size * self.top_groups
        );
        let best_two = |group: &[f32]| {
            let mut sorted = group.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted.iter().take(2).sum::<f32>()
        };
        let goodness: Vec<f32> = row.chunks(size).map(best_two).collect();
        let mut order: Vec<usize> = (0..self.groups).collect();
        order.sort_by(|&a, &b| goodness[b].total_cmp(&goodness[a]));
        for &group in &order[self.top_groups..] {
            row[group * size..(group + 1) * size].fill(f32::NEG_INFINITY);
        }
    }
}
