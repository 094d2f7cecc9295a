//! The MoE-LoRA feed-forward network of one layer as one operation.

mod composed;
#[cfg(feature = "flex")]
mod cpu;
mod shapes;

#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
use burn::tensor::Tensor;

use crate::Matrix;
#[cfg(feature = "flex")]
use crate::cpu::weight::Weight;
use crate::dropout::Mask;

/// The LoRA matrices of all active experts on one projection, side by side.
#[derive(Clone, Debug)]
pub struct Loras {
    /// `[d_in, experts · rank]`.
    pub a: Tensor<2>,
    /// `[experts · rank, d_out]`.
    pub b: Tensor<2>,
}

/// What the operation computes, besides its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeFfn {
    /// Number of active experts.
    pub experts: usize,
    /// Rank of every LoRA.
    pub rank: usize,
    /// Factor of every LoRA, `alpha / rank`.
    pub scaling: f32,
    /// The expert whose output is pooled.
    pub observed: Option<Observed>,
    /// Dropout on the LoRA inputs.
    pub dropout: Option<Dropout>,
}

/// The expert whose un-gated output is pooled over real tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its place among the active experts.
    pub expert: usize,
    /// Let the pooled output's gradient reach that expert's LoRAs alone, not `x`.
    pub detached: bool,
}

/// Masks on the inputs of the LoRAs.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Per active expert: on the input of gate, of up, and of down.
    pub masks: Vec<[Mask; 3]>,
}

/// [`moe_ffn()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct MoeFfnInputs<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) weights: FloatTensor<B>,
    pub(crate) gate_a: FloatTensor<B>,
    pub(crate) gate_b: FloatTensor<B>,
    pub(crate) up_a: FloatTensor<B>,
    pub(crate) up_b: FloatTensor<B>,
    pub(crate) down_a: FloatTensor<B>,
    pub(crate) down_b: FloatTensor<B>,
    /// Gate, up and down.
    pub(crate) base: [Weight; 3],
    pub(crate) shares: FloatTensor<B>,
    pub(crate) settings: MoeFfn,
}

/// `Σ_e g_e F_e(x)`, where expert e is the SwiGLU network of the base with LoRA e on its three matrices, and the pooled output of
/// one expert.
///
/// - `x [batch · seq, d_model]`
/// - `weights [batch · seq, experts]`: g
/// - `loras`: the experts', on gate, up and down
/// - `base`: the frozen gate and up `[d_model, d_ff]` and down `[d_ff, d_model]`, in any format of [`linear()`](fn@crate::linear)
/// - `shares [batch, seq]`: each token's share of its row's mean
///
/// Returns the mixture `[batch · seq, d_model]` and, when an expert is observed, `[batch, d_model]`, its output under `shares`.
///
/// The base's matrices are used once, since down (W₂) is linear (B, A as Burn stores them):
///
/// ```text
/// Σ_e g_e (h_e W₂ + s h_e A_e B_e) = (Σ_e g_e h_e) W₂ + Σ_e (g_e s h_e A_e) B_e
/// ```
///
/// An expert that weighs exactly nothing for twelve tokens in a row is not computed for them, unless a gradient is wanted: a batch may
/// mix the experts of many tasks.
///
/// The pooled row goes through the same product as the tokens. For the backward pass the kernel keeps the base's gate and up and
/// the low-rank codes; everything else is computed again.
///
/// # Panics
///
/// When the shapes do not fit together, there is no expert or no rank, or the observed expert or a dropout's masks are of other experts.
pub fn moe_ffn(
    x: Tensor<2>,
    weights: Tensor<2>,
    loras: [Loras; 3],
    base: [impl Into<Matrix>; 3],
    shares: Tensor<2>,
    settings: MoeFfn,
) -> (Tensor<2>, Option<Tensor<2>>) {
    let base = base.map(Into::into);
    shapes::assert_fit(&x, &weights, &loras, &base, &shares, &settings);
    #[cfg(feature = "flex")]
    if let [Some(base_gate), Some(base_up), Some(base_down)] = base.each_ref().map(Weight::frozen)
        && !shares.is_tracked()
        && [&x, &weights, &shares].into_iter().all(crate::has_kernels)
        && loras
            .iter()
            .flat_map(|it| [&it.a, &it.b])
            .all(crate::has_kernels)
    {
        use crate::FusedOps;
        let [gate, up, down] = loras;
        let observed = settings.observed.is_some();
        let (output, pooled) = burn::backend::Dispatch::moe_ffn(MoeFfnInputs {
            x: x.into_dispatch(),
            weights: weights.into_dispatch(),
            gate_a: gate.a.into_dispatch(),
            gate_b: gate.b.into_dispatch(),
            up_a: up.a.into_dispatch(),
            up_b: up.b.into_dispatch(),
            down_a: down.a.into_dispatch(),
            down_b: down.b.into_dispatch(),
            base: [base_gate, base_up, base_down],
            shares: shares.into_dispatch(),
            settings,
        });
        let pooled = observed.then(|| Tensor::from_dispatch(pooled));
        return (Tensor::from_dispatch(output), pooled);
    }
    composed::moe_ffn(x, weights, loras, base, shares, &settings)
}
