use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{Choices, values};
use super::draws::{self, Draw};
use super::loss::Coefficients;
use super::queue::Order;
use super::{Capacity, Dispatch, Phase, RouterInit, RouterLinear, Tokens, TopKWeights};

/// Which expert a token goes to besides its best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecondExpert {
    /// The second best, always.
    Largest,
    /// The second best, with probability `min(1, 2 g₂)` while training (GShard, algorithm 1); always while evaluating.
    #[default]
    Chance,
    /// One of the others, drawn from the softmax over them while training (as the authors' and DeepSpeed's code does by Gumbel noise);
    /// the second best while evaluating.
    Sampled,
}

/// Settings of a [`GShard`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GShardConfig {
    /// Places per group and expert; the even share of two choices per token is `2N / (G E)`.
    pub capacity: Capacity,
    /// The second expert.
    pub second: SecondExpert,
    /// What the weights are: `g / (g₁ + g₂)` in the paper, over what found a place in DeepSpeed and fairscale.
    pub weights: TopKWeights,
    /// Coefficient of the balance loss, over the first choices.
    #[schemars(range(min = 0, max = 1e6))]
    pub balance: f64,
}

impl Default for GShardConfig {
    /// As in the paper.
    fn default() -> Self {
        Self {
            capacity: Capacity::factor(1.0),
            second: SecondExpert::Chance,
            weights: TopKWeights::Chosen,
            balance: 1e-2,
        }
    }
}

/// Two experts per token, in groups, the second one by chance (GShard, arXiv 2006.16668, algorithm 1; GLaM, arXiv 2112.06905, §4).
///
/// `p = softmax(x W)`; first choices fill first; the weights are the two probabilities over their sum.
#[derive(Module, Debug)]
pub struct GShard {
    /// Its settings.
    #[module(skip)]
    pub config: GShardConfig,
    /// Logits of the experts.
    pub linear: RouterLinear,
}

/// The random numbers of a [`GShard`]'s second experts.
#[derive(Clone, Copy, Debug)]
pub enum SecondDraw<'a> {
    /// None: the second best.
    None,
    /// `[tokens]`, uniform in `[0, 1)`: the second best where `2 g₂` is larger.
    Chance(&'a [f32]),
    /// `[tokens, experts]`: the largest of the other logits plus these.
    Noise(&'a [f32]),
}

impl GShard {
    /// A router with a normal start, `σ = 1/√d_model`.
    pub fn new(
        config: GShardConfig,
        d_model: usize,
        experts: usize,
        seed: u64,
        device: &Device,
    ) -> Self {
        let init = RouterInit::TruncatedNormal { scale: 1.0, seed };
        let linear = RouterLinear::new(d_model, experts, init, device);
        Self { config, linear }
    }

    /// Routes `x [tokens, d_model]`.
    ///
    /// # Panics
    /// When `tokens` is of another number, or there are fewer than two experts.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens, phase: Phase) -> Dispatch {
        let logits = self.linear.logits(x);
        let [count, experts] = logits.dims();
        match (self.config.second, phase) {
            (SecondExpert::Chance, Phase::Train { seed }) => {
                let chance = draws::uniform(seed, Draw::Second, count);
                self.route(logits, tokens, SecondDraw::Chance(&chance))
            }
            (SecondExpert::Sampled, Phase::Train { seed }) => {
                let noise = draws::gumbel(seed, count * experts);
                self.route(logits, tokens, SecondDraw::Noise(&noise))
            }
            (SecondExpert::Largest, _) | (_, Phase::Evaluate) => {
                self.route(logits, tokens, SecondDraw::None)
            }
        }
    }

    /// Routes by `logits [tokens, experts]` and given random numbers.
    ///
    /// # Panics
    /// When the shapes do not belong together, or there are fewer than two experts.
    pub fn route(&self, logits: Tensor<2>, tokens: &Tokens, second: SecondDraw<'_>) -> Dispatch {
        let [_, experts] = logits.dims();
        let probs = softmax(logits.clone(), 1);
        let scores = values(&logits);
        let mut choices = Choices::largest(&scores, experts, 2, tokens);
        if let SecondDraw::Noise(noise) = second {
            assert_eq!(noise.len(), scores.len(), "a number per token and expert");
            sample_second(&mut choices, &scores, noise);
        }
        let chosen = self.config.weights.of(&choices, &logits, &probs); // [tokens, 2]
        let first = choices.shares(1, tokens);
        if let SecondDraw::Chance(chance) = second {
            assert_eq!(chance.len(), tokens.count(), "a number per token");
            let weights = values(&chosen);
            for (token, &chance) in chance.iter().enumerate() {
                let (g1, g2) = (weights[2 * token], weights[2 * token + 1]);
                // The paper's g₁ and g₂ are divided by their sum before.
                choices.stands[2 * token + 1] &= 2.0 * g2 / (g1 + g2) > chance;
            }
        }
        let places = self.config.capacity.places(tokens.per_group(), 2, experts);
        let slots = choices.admit(Order::Choice, places, tokens);
        let losses = Coefficients {
            balance: self.config.balance,
            z: 0.0,
        };
        let losses = losses.losses(logits, &probs, &first, tokens);
        let weights = self.config.weights.after(chosen, &slots);
        choices.dispatch(&slots, weights, Some(probs), losses)
    }
}

/// The second choice becomes the largest of the others' scores plus noise.
fn sample_second(choices: &mut Choices, scores: &[f32], noise: &[f32]) {
    let experts = choices.num_experts;
    let rows = scores.chunks(experts).zip(noise.chunks(experts));
    for (pair, (scores, noise)) in choices.experts.chunks_mut(2).zip(rows) {
        let noisy = |expert: u32| scores[expert as usize] + noise[expert as usize];
        let others = (0..experts as u32).filter(|&expert| expert != pair[0]);
        let best = others.reduce(|best, other| match noisy(other) > noisy(best) {
            true => other,
            false => best,
        });
        pair[1] = best.expect("two experts at least");
    }
}
