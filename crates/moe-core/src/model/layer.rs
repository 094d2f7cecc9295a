use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::Tensor;

use super::{Attention, AttentionContext, FeedForward, LayerCache, rms_norm};

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
    /// `x [batch, seq, d_model]` → `[batch, seq, d_model]`.
    ///
    /// With a cache the keys and values of earlier tokens are attended to, and those of `x` are
    /// appended.
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &AttentionContext,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let x = x.clone()
            + self
                .attention
                .forward(rms_norm(&self.input_norm, x), context, cache);
        x.clone()
            + self
                .feed_forward
                .forward(rms_norm(&self.post_attention_norm, x))
    }
}
