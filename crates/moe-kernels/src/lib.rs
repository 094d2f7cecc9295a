//! Fused operations of MoE-LoRA language models, each with a hand-written gradient.
//!
//! Every function here computes what its composition of Burn's operations computes, and its gradient, in fewer passes
//! over memory. On the CPU back end (feature `flex`) it runs kernels of its own; anywhere else, and wherever a weight that
//! is taken for frozen is trained after all, it *is* that composition.
//!
//! - [`linear()`], [`linears()`]: products with frozen matrices, as numbers or in the quantised [`Blocks`] of a GGUF file
//! - [`grouped_linear()`]: rows that lie group by group, each group with a matrix of its own
//! - [`rms_norm()`], [`add_rms_norm()`], [`swiglu()`]
//! - [`token_gate()`]: the weights of the experts for each token
//! - [`attention()`]: rotary, grouped-query, causal attention that keeps no score matrix
//! - [`token_cross_entropy()`]: the loss of next tokens, without the logits of a whole vocabulary
//! - [`moe_ffn()`]: the MoE-LoRA feed-forward network as one operation
//! - [`sparse_ffn()`]: the experts of a sparse mixture, each on its tokens, as one operation
//! - [`AdamW`]: the optimiser in one pass over each parameter
//! - [`dropout`]: masks that are a function of a key and a place
//! - [`set_up_process`]: memory and threads as large tensors want them
//!
//! Results do not depend on the number of threads.

mod adamw;
mod attention;
#[cfg(feature = "flex")]
mod autodiff;
#[cfg(feature = "flex")]
mod backend;
mod blocks;
#[cfg_attr(not(feature = "flex"), allow(dead_code, unused_macros, unused_imports))]
mod cpu;
pub mod dropout;
mod grouped_linear;
mod linear;
mod matrix;
mod moe_ffn;
mod process;
mod rms_norm;
mod sparse_ffn;
mod swiglu;
mod token_cross_entropy;
mod token_gate;
#[cfg(feature = "flex")]
mod values;

pub use adamw::AdamW;
pub use attention::{AttentionShape, attend, attention, attention_bias, rotate};
#[cfg(feature = "flex")]
pub use backend::FusedOps;
pub use blocks::{BlockFormat, Blocks, widen};
#[cfg(feature = "flex")]
pub use cpu::level::{LEVEL_VARIABLE, Level};
pub use grouped_linear::grouped_linear;
pub use linear::{linear, linears};
pub use matrix::Matrix;
pub use moe_ffn::{Dropout, Loras, MoeFfn, Observed, moe_ffn};
pub use process::set_up_process;
pub use rms_norm::{add_rms_norm, rms_norm};
pub use sparse_ffn::{Entries, sparse_ffn};
pub use swiglu::swiglu;
pub use token_cross_entropy::token_cross_entropy;
pub use token_gate::token_gate;

/// The README's example runs with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Whether the kernels of this crate can work on `x`: 32-bit floats of the CPU back end.
pub fn has_kernels<const D: usize>(x: &burn::tensor::Tensor<D>) -> bool {
    #[cfg(feature = "flex")]
    {
        let plain = x.clone().inner();
        plain.dtype() == burn::tensor::DType::F32
            && plain.try_into_primitive::<burn::backend::Flex>().is_ok()
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = x;
        false
    }
}
