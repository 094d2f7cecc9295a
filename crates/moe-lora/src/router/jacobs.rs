//! The dense mixture of 1991, whose experts compete by a likelihood.

use burn::module::Module;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Tensor};

use super::choices::{Choices, values};
use super::loss::log_sum_exp;
use super::queue::Order;
use super::{Dispatch, RouterInit, RouterLinear, Tokens};

/// The first mixture of experts (Jacobs, Jordan, Nowlan and Hinton 1991): every expert answers, `p = softmax(x W)` weighs them.
///
/// What makes experts specialise is its loss, [`competitive_loss`], which the caller takes of the experts' outputs.
#[derive(Module, Debug)]
pub struct Jacobs {
    /// Logits of the experts.
    pub linear: RouterLinear,
}

impl Jacobs {
    /// A router whose experts are alike at first.
    pub fn new(d_model: usize, experts: usize, device: &Device) -> Self {
        let linear = RouterLinear::new(d_model, experts, RouterInit::Zeros, device);
        Self { linear }
    }

    /// Routes `x [tokens, d_model]`.
    ///
    /// # Panics
    /// When `tokens` is of another number.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens) -> Dispatch {
        Self::route(self.linear.logits(x), tokens)
    }

    /// Routes by `logits [tokens, experts]`.
    ///
    /// # Panics
    /// When the shapes do not belong together.
    pub fn route(logits: Tensor<2>, tokens: &Tokens) -> Dispatch {
        let [_, experts] = logits.dims();
        let choices = Choices::largest(&values(&logits), experts, experts, tokens);
        let slots = choices.admit(Order::Position, None, tokens);
        let probs = softmax(logits, 1);
        let weights = choices.of_table(probs.clone());
        choices.dispatch(&slots, weights, Some(probs), Vec::new())
    }
}

/// `−log Σ_e p_e exp(−½ ‖d − o_e‖²)`, mean over the tokens, `[1]` (Jacobs et al. 1991, eq. 1.3): the likelihood of a mixture of
/// Gaussians of variance one, without its constant `½ out log 2π`, and not the error of the blended output.
///
/// `logits [tokens, experts]`, `outputs [tokens, experts, out]`, `target [tokens, out]`.
pub fn competitive_loss(logits: Tensor<2>, outputs: Tensor<3>, target: Tensor<2>) -> Tensor<1> {
    -log_sum_exp(log_joint(logits, outputs, target)).mean()
}

/// Share of each expert in explaining the target, `h_e = p_e exp(−½ ‖d − o_e‖²) / Σ`, `[tokens, experts]`: what its gradient is
/// weighed by. Arguments as of [`competitive_loss`].
pub fn posterior(logits: Tensor<2>, outputs: Tensor<3>, target: Tensor<2>) -> Tensor<2> {
    softmax(log_joint(logits, outputs, target), 1)
}

/// `log p_e − ½ ‖d − o_e‖²`, `[tokens, experts]`.
fn log_joint(logits: Tensor<2>, outputs: Tensor<3>, target: Tensor<2>) -> Tensor<2> {
    let [tokens, experts, _] = outputs.dims();
    let off = outputs - target.unsqueeze_dim::<3>(1);
    let distance = off.powi_scalar(2).sum_dim(2).reshape([tokens, experts]);
    log_softmax(logits, 1) - distance * 0.5
}
