use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};

use super::Tokens;

/// Which of the routers' losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossKind {
    /// Experts that are chosen often have little probability: [`balance_loss`].
    Balance,
    /// Experts have equal sums of gates (Shazeer et al. 2017, eq. 7).
    Importance,
    /// Experts have equal expected numbers of tokens (Shazeer et al. 2017, eq. 11).
    Load,
    /// Logits stay small: [`z_loss`].
    Z,
}

impl LossKind {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Importance => "importance",
            Self::Load => "load",
            Self::Z => "z",
        }
    }
}

/// A loss of a router, and how much it counts.
#[derive(Clone, Debug)]
pub struct RouterLoss {
    /// Which it is.
    pub kind: LossKind,
    /// `[1]`, without the coefficient.
    pub value: Tensor<1>,
    /// What it is multiplied by before it is added to the loss of the task.
    pub coefficient: f64,
}

/// Coefficients of the two losses that most routers have; one that is 0 is not computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coefficients {
    pub balance: f64,
    pub z: f64,
}

impl Coefficients {
    /// The losses of `logits` and `probs [tokens, experts]`; `shares [groups, experts]` are the `f_e` of [`balance_loss`].
    pub fn losses(
        self,
        logits: Tensor<2>,
        probs: &Tensor<2>,
        shares: &[f64],
        tokens: &Tokens,
    ) -> Vec<RouterLoss> {
        let mut losses = Vec::new();
        if self.balance != 0.0 {
            losses.push(RouterLoss {
                kind: LossKind::Balance,
                value: balance_of(probs.clone(), shares, tokens),
                coefficient: self.balance,
            });
        }
        if self.z != 0.0 {
            losses.push(RouterLoss {
                kind: LossKind::Z,
                value: z_loss(logits, tokens),
                coefficient: self.z,
            });
        }
        losses
    }
}

/// `E Σ_e f_e P_e`, mean over the groups, `[1]` (Switch Transformers, eq. 4, without α).
///
/// `f_e` is the share of a group's choices that went to expert `e` before any was dropped, and sums to one; `P_e` the mean of
/// `probs [tokens, experts]` over the group's real tokens. It is 1 where either is even, for any number of choices per token.
/// `chosen` is `[groups, experts]`, how many chose each. GShard's `ℓ_aux` is this divided by `E²`, Mixtral's this times its top-k.
///
/// # Panics
/// When the shapes do not belong together.
pub fn balance_loss(probs: Tensor<2>, chosen: &[u32], tokens: &Tokens) -> Tensor<1> {
    let [_, experts] = probs.dims();
    balance_of(probs, &shares(chosen, experts), tokens)
}

/// `chosen [groups, experts]` over the sums of the groups.
pub(crate) fn shares(chosen: &[u32], experts: usize) -> Vec<f64> {
    let groups = chosen.chunks(experts);
    groups
        .flat_map(|chosen| {
            let all = chosen.iter().sum::<u32>().max(1);
            chosen
                .iter()
                .map(move |&one| f64::from(one) / f64::from(all))
        })
        .collect()
}

/// As [`balance_loss`], of given `shares [groups, experts]`.
fn balance_of(probs: Tensor<2>, shares: &[f64], tokens: &Tokens) -> Tensor<1> {
    let [count, experts] = probs.dims();
    let groups = tokens.groups();
    assert_eq!(count, tokens.count(), "one row of probabilities per token");
    assert_eq!(
        shares.len(),
        groups * experts,
        "a share per group and expert"
    );
    let real = tokens.real_per_group();
    let live = real.iter().filter(|&&real| real > 0).count();
    let factors = shares
        .chunks(experts)
        .zip(&real)
        .flat_map(|(shares, &real)| {
            let over = (real * live).max(1) as f64; // a group of padding has no probabilities either
            shares
                .iter()
                .map(move |&share| (share * experts as f64 / over) as f32)
        });
    let factors = TensorData::new(factors.collect::<Vec<f32>>(), [groups, 1, experts]);
    let factors = Tensor::<3>::from_data(factors, &probs.device());
    let sums = masked(probs, tokens)
        .reshape([groups, tokens.per_group(), experts])
        .sum_dim(1); // [groups, 1, experts]
    (sums * factors).sum()
}

/// `mean_t (log Σ_e exp logits_te)²` over the real tokens, `[1]` (ST-MoE, eq. 5). `logits [tokens, experts]`.
pub fn z_loss(logits: Tensor<2>, tokens: &Tokens) -> Tensor<1> {
    let real: usize = tokens.real_per_group().iter().sum();
    masked(log_sum_exp(logits).powi_scalar(2), tokens).sum() / real as f64
}

/// The squared coefficient of variation of the sums of `probs [tokens, experts]` over the real tokens, `[1]`: the importance loss
/// (Shazeer et al. 2017, eq. 7) with the probabilities of all experts for the gates. Without noise on the choice, the gates of the
/// chosen alone would have no gradient towards experts that nobody chooses.
pub fn importance_loss(probs: Tensor<2>, tokens: &Tokens, variance: Variance) -> Tensor<1> {
    cv_squared(masked(probs, tokens).sum_dim(0).squeeze_dim(0), variance)
}

/// Whose variance [`cv_squared`] takes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// Divided by n, as the authors' tensor2tensor.
    #[default]
    Biased,
    /// Divided by n − 1, as most PyTorch code.
    Unbiased,
}

/// The squared coefficient of variation `var / (mean² + 1e-10)` of `values [n]`, `[1]`; zero for a single value.
pub fn cv_squared(values: Tensor<1>, variance: Variance) -> Tensor<1> {
    let [n] = values.dims();
    let over = match variance {
        Variance::Biased => n,
        Variance::Unbiased => (n - 1).max(1),
    };
    let mean = values.clone().mean(); // [1]
    let square = (values - mean.clone()).powi_scalar(2).sum() / over as f64;
    square / (mean.powi_scalar(2) + 1e-10)
}

/// `[n, m]` → `[n, 1]`.
pub(crate) fn log_sum_exp(logits: Tensor<2>) -> Tensor<2> {
    let first = logits.clone().narrow(1, 0, 1);
    first.clone() - log_softmax(logits, 1).narrow(1, 0, 1)
}

/// `values [tokens, n]` with zeros in the padding.
pub(crate) fn masked(values: Tensor<2>, tokens: &Tokens) -> Tensor<2> {
    match tokens.mask() {
        None => values,
        Some(mask) => {
            let mask = TensorData::new(mask, [tokens.count(), 1]);
            let mask = Tensor::from_data(mask, &values.device());
            values * mask
        }
    }
}
