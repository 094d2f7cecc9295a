//! Top-k of noisy logits, balanced by the importance and load losses.

use burn::module::Module;
use burn::tensor::activation::{softmax, softplus};
use burn::tensor::{Device, Int, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{Choices, constant, values};
use super::loss::masked;
use super::queue::Order;
use super::{
    Dispatch, LossKind, Phase, RouterInit, RouterLinear, RouterLoss, Tokens, Variance, cv_squared,
    draws,
};

/// What is added to the deviation of the noise, so that there is always some.
const LEAST_NOISE: f64 = 1e-2;

/// Settings of a [`NoisyTopK`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NoisyTopKConfig {
    /// Experts per token.
    #[schemars(range(min = 1, max = 4096))]
    pub top_k: usize,
    /// `w_importance`.
    #[schemars(range(min = 0, max = 1e6))]
    pub importance: f64,
    /// `w_load`.
    #[schemars(range(min = 0, max = 1e6))]
    pub load: f64,
    /// Of the two losses.
    pub variance: Variance,
}

impl Default for NoisyTopKConfig {
    /// Both coefficients 0.1, a row of the paper's table 6.
    fn default() -> Self {
        Self {
            top_k: 2,
            importance: 0.1,
            load: 0.1,
            variance: Variance::Biased,
        }
    }
}

/// Noisy top-k gating (Shazeer et al. 2017, arXiv 1701.06538, §2.1 and §4).
///
/// `H(x) = x W_g + ε (softplus(x W_n) + 1e-2)`, ε normal; `G(x) = softmax` over the `top_k` largest of `H(x)` (eq. 3–5).
/// No noise while evaluating.
#[derive(Module, Debug)]
pub struct NoisyTopK {
    /// Its settings.
    #[module(skip)]
    pub config: NoisyTopKConfig,
    /// `W_g`.
    pub gate: RouterLinear,
    /// `W_n`.
    pub noise: RouterLinear,
}

/// Gaussian noise on the logits.
#[derive(Clone, Debug)]
pub struct GateNoise<'a> {
    /// `[tokens, experts]`, its deviation.
    pub deviation: Tensor<2>,
    /// `[tokens, experts]`, normal with mean 0 and variance 1.
    pub normal: &'a [f32],
}

impl NoisyTopK {
    /// A router that starts with zeros, as the paper's appendix A says: even in the mean, different by the noise.
    pub fn new(config: NoisyTopKConfig, d_model: usize, experts: usize, device: &Device) -> Self {
        let zeros = || RouterLinear::new(d_model, experts, RouterInit::Zeros, device);
        Self {
            config,
            gate: zeros(),
            noise: zeros(),
        }
    }

    /// Routes `x [tokens, d_model]`.
    ///
    /// # Panics
    /// When `tokens` is of another number, or there are fewer experts than `top_k`.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens, phase: Phase) -> Dispatch {
        let clean = self.gate.logits(x.clone());
        let [count, experts] = clean.dims();
        match phase {
            Phase::Evaluate => self.route(clean, None, tokens),
            Phase::Train { seed } => {
                let noise = GateNoise {
                    deviation: self.deviation(x),
                    normal: &draws::normal(seed, count * experts),
                };
                self.route(clean, Some(noise), tokens)
            }
        }
    }

    /// `x [tokens, d_model]` → deviation of the noise `[tokens, experts]`, `softplus(x W_n) + 1e-2`.
    pub fn deviation(&self, x: Tensor<2>) -> Tensor<2> {
        softplus(self.noise.logits(x), 1.0) + LEAST_NOISE
    }

    /// Routes by `clean [tokens, experts]`, `x W_g`, and given noise.
    ///
    /// # Panics
    /// When the shapes do not belong together, or there are fewer experts than `top_k`.
    pub fn route(
        &self,
        clean: Tensor<2>,
        noise: Option<GateNoise<'_>>,
        tokens: &Tokens,
    ) -> Dispatch {
        let NoisyTopKConfig {
            top_k,
            importance,
            load,
            variance,
        } = self.config;
        let [_, experts] = clean.dims();
        let noisy = match &noise {
            None => clean.clone(),
            Some(noise) => clean.clone() + noise.deviation.clone() * constant(noise.normal, &clean),
        };
        let choices = Choices::largest(&values(&noisy), experts, top_k, tokens);
        let weights = softmax(choices.of_table(noisy.clone()), 1); // [tokens, top_k]
        let slots = choices.admit(Order::Position, None, tokens);
        let scores = softmax(clean.clone(), 1);
        let mut dispatch = choices.dispatch(&slots, weights, Some(scores), Vec::new());
        let loss = |kind, coefficient, sums| RouterLoss {
            kind,
            value: cv_squared(sums, variance),
            coefficient,
        };
        if importance != 0.0 {
            let sums = self::importance(&dispatch);
            let loss = loss(LossKind::Importance, importance, sums);
            dispatch.losses.push(loss);
        }
        if let Some(noise) = noise.filter(|_| load != 0.0 && top_k < experts) {
            let chance = chance_of_choice(&clean, &noisy, &noise.deviation, top_k, tokens);
            let sums = masked(chance, tokens).sum_dim(0).reshape([experts]);
            dispatch.losses.push(loss(LossKind::Load, load, sums));
        }
        dispatch
    }
}

/// `Σ_x G(x)`, `[experts]` (Shazeer et al. 2017, eq. 6).
pub fn importance(dispatch: &Dispatch) -> Tensor<1> {
    dispatch.gates().sum_dim(0).reshape([dispatch.experts])
}

/// `P(x, i) = Φ((x W_g − kth_excluding(H(x), k, i)) / σ)`, `[tokens, experts]` (Shazeer et al. 2017, eq. 8–9): how likely expert `i`
/// is among the `top_k` if its noise alone is drawn again. Arguments `[tokens, experts]`.
///
/// # Panics
/// When there are not more experts than `top_k`.
pub fn chance_of_choice(
    clean: &Tensor<2>,
    noisy: &Tensor<2>,
    deviation: &Tensor<2>,
    top_k: usize,
    tokens: &Tokens,
) -> Tensor<2> {
    let [count, experts] = clean.dims();
    let best = Choices::largest(&values(noisy), experts, top_k + 1, tokens);
    // Who stands at the threshold: the next one where an expert is among the best itself, the last of the best otherwise.
    let mut rivals = Vec::with_capacity(count * experts);
    for best in best.experts.chunks(top_k + 1) {
        for expert in 0..experts as u32 {
            let within = best[..top_k].contains(&expert);
            rivals.push(i64::from(best[if within { top_k } else { top_k - 1 }]));
        }
    }
    let rivals = TensorData::new(rivals, [count, experts]);
    let rivals = Tensor::<2, Int>::from_data(rivals, &noisy.device());
    let threshold = noisy.clone().gather(1, rivals);
    let z = (clean.clone() - threshold) / deviation.clone();
    ((z * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5
}
