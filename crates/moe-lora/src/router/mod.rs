//! Routers of sparse mixtures: which experts a token goes to, and with which weights.
//!
//! One file per router, one enum over them. A router returns a [`Dispatch`]: entries (token, expert, slot), their weights, and its
//! own losses. It keeps nothing of what it has routed, and what it draws is a function of the seed in [`Phase::Train`].
//! Choices are made on the host, from one read of the scores; probabilities, weights and losses stay tensors.

mod balance;
mod bias_balanced;
mod capacity;
mod choices;
mod columns;
mod config;
mod dispatch;
mod draws;
mod expert_choice;
mod glam;
mod gshard;
pub mod jacobs;
#[cfg(test)]
mod laws;
mod linear;
mod loss;
pub mod noisy_top_k;
mod queue;
mod random_routed;
mod recorded;
mod routed;
mod softmax_top_k;
mod st_moe;
mod switch;
mod tokens;
mod uniform;

use burn::module::Module;
use burn::tensor::Tensor;

pub use balance::{Balance, BalanceFigures};
pub use bias_balanced::{BiasBalanced, BiasBalancedConfig, ExpertGroups, Rebalance};
pub use capacity::Capacity;
pub use config::{DomainGroups, Place, RouterConfig};
pub use dispatch::{ByExpert, Dispatch, Entry};
pub use draws::Phase;
pub use expert_choice::{ExpertChoice, ExpertChoiceConfig};
pub use glam::Glam;
pub use gshard::{GShard, GShardConfig, SecondDraw, SecondExpert};
pub use jacobs::Jacobs;
pub use linear::{RouterInit, RouterLinear};
pub use loss::{LossKind, RouterLoss, Variance, balance_loss, cv_squared, importance_loss, z_loss};
pub use noisy_top_k::{GateNoise, NoisyTopK, NoisyTopKConfig};
pub use queue::Priority;
pub use random_routed::{DomainTable, RandomRouted};
pub use recorded::Recorded;
pub use softmax_top_k::{SoftmaxTopK, SoftmaxTopKConfig, TopKWeights};
pub use st_moe::{FirstChoices, StMoe, StMoeConfig};
pub use switch::{Switch, SwitchConfig};
pub use tokens::Tokens;
pub use uniform::Uniform;

/// Whether a model sees the tokens after the one at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// It does not: a decoder.
    Causal,
    /// It does: an encoder.
    Bidirectional,
}

/// The routers. GLaM is [`Self::GShard`] in the layers that [`Glam`] names.
#[derive(Module, Debug)]
#[allow(missing_docs, reason = "each variant is the type of its name")]
pub enum Router {
    Jacobs(Jacobs),
    NoisyTopK(NoisyTopK),
    GShard(GShard),
    Switch(Switch),
    StMoe(StMoe),
    ExpertChoice(ExpertChoice),
    BiasBalanced(BiasBalanced),
    SoftmaxTopK(SoftmaxTopK),
    RandomRouted(RandomRouted),
    Uniform(Uniform),
}

impl Router {
    /// Routes `x [tokens, d_model]`.
    ///
    /// # Panics
    /// When `tokens` is of another number, when there are fewer experts than choices, or when [`RandomRouted`] is not told the ids.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens, phase: Phase) -> Dispatch {
        assert_eq!(x.dims()[0], tokens.count(), "a state per token");
        match self {
            Self::Jacobs(router) => router.forward(x, tokens),
            Self::NoisyTopK(router) => router.forward(x, tokens, phase),
            Self::GShard(router) => router.forward(x, tokens, phase),
            Self::Switch(router) => router.forward(x, tokens, phase),
            Self::StMoe(router) => router.forward(x, tokens, phase),
            Self::ExpertChoice(router) => router.forward(x, tokens),
            Self::BiasBalanced(router) => router.forward(x, tokens),
            Self::SoftmaxTopK(router) => router.forward(x, tokens, phase),
            Self::RandomRouted(router) => router.forward(tokens, &x.device()),
            Self::Uniform(router) => router.forward(tokens, &x.device()),
        }
    }

    /// How many experts it weighs.
    pub fn experts(&self) -> usize {
        match self {
            Self::Jacobs(router) => router.linear.experts(),
            Self::NoisyTopK(router) => router.gate.experts(),
            Self::GShard(router) => router.linear.experts(),
            Self::Switch(router) => router.linear.experts(),
            Self::StMoe(router) => router.linear.experts(),
            Self::ExpertChoice(router) => router.linear.experts(),
            Self::BiasBalanced(router) => router.linear.experts(),
            Self::SoftmaxTopK(router) => router.linear.experts(),
            Self::RandomRouted(router) => router.experts(),
            Self::Uniform(router) => router.experts(),
        }
    }
}
