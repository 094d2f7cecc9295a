use burn::module::Module;
use burn::nn::RmsNorm;

use super::{Attention, AttentionContext, FeedForwardBlock, LayerCache, Residual, Routed};

/// One pre-norm block.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// `input_layernorm` in Hugging Face names.
    pub input_norm: RmsNorm,
    /// Self-attention.
    pub attention: Attention,
    /// `post_attention_layernorm` in Hugging Face names.
    pub post_attention_norm: RmsNorm,
    /// SwiGLU, one or many.
    pub feed_forward: FeedForwardBlock,
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
        self.forward_routed(x, context, cache);
    }

    /// As [`Self::forward`]; returns what the layer's router chose, where it has one.
    pub fn forward_routed(
        &self,
        x: &mut Residual,
        context: &AttentionContext,
        cache: Option<&mut LayerCache>,
    ) -> Option<Routed> {
        let normed = x.normed(&self.input_norm);
        x.add(self.attention.forward(normed, context, cache));
        let normed = x.normed(&self.post_attention_norm);
        let (output, routed) = self.feed_forward.forward_routed(normed);
        x.add(output);
        routed
    }
}
