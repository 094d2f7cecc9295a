//! The decoder of the Llama family (Llama, Mistral, Qwen2, Qwen3; Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE) on Burn.
//!
//! One pre-norm block is `x + attention(norm(x))`, then `x + feed_forward(norm(x))`
//! (Touvron et al. 2023, "LLaMA", section 2.2): rotary positions, grouped queries, SwiGLU, RMSNorm. The feed-forward
//! network of a layer is one for all tokens, or a sparse mixture of them.
//!
//! Weights are created on the plain device. Burn treats a tensor without autodiff as a constant
//! next to one with it, so a block may be fed activations of an autodiff device: gradients flow
//! through the frozen weights to whatever is trained below, and none is computed for the weights.

mod attention;
mod cache;
mod context;
mod decoder;
mod dtype;
mod embedding;
mod feed_forward;
mod feed_forward_block;
mod layer;
mod linear;
mod linears;
mod load;
mod norm;
mod random;
mod residual;
mod rope;
mod source;
mod sparse;
mod states;
mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod walk;
mod weight;

pub use attention::{Attention, Projected};
pub use cache::{KvCache, LayerCache};
pub use context::AttentionContext;
pub use decoder::Decoder;
pub use dtype::BaseDtype;
pub use embedding::Embedding;
pub use feed_forward::FeedForward;
pub use feed_forward_block::FeedForwardBlock;
pub use layer::DecoderLayer;
pub use linear::{Linear, linear, linears};
pub use norm::rms_norm;
pub use residual::Residual;
pub use rope::Rope;
pub use sparse::{Routed, SharedExpert, SparseFeedForward};
pub use weight::Weight;
