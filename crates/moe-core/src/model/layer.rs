use burn::module::Module;
use burn::nn::RmsNorm;

use super::{Attention, AttentionContext, FeedForward, LayerCache, Residual};

/// One pre-norm block.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// `input_layernorm` in Hugging Face names.
    pub input_norm: RmsNorm,
    /// Self-attention.
    pub attention: Attention,
    /// `post_attention_layernorm` in Hugging Face names.
    pub post_attention_norm: RmsNorm,
    /// SwiGLU.
    pub feed_forward: FeedForward,
}

impl DecoderLayer {
    /// Takes the stream `x` from below the block to above it.
    ///
    /// With a cache the keys and values of earlier tokens are attended to, and those of `x` are
    /// appended.
    pub fn forward(
        &self,
        x: &mut Residual,
        context: &AttentionContext,
        cache: Option<&mut LayerCache>,
    ) {
        let normed = x.normed(&self.input_norm);
        x.add(self.attention.forward(normed, context, cache));
        let normed = x.normed(&self.post_attention_norm);
        x.add(self.feed_forward.forward(normed));
    }
}
