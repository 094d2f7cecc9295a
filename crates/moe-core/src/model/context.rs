use burn::tensor::{Bool, Tensor};

use super::{Rope, attention_bias};

/// What all layers of one forward pass share: the rotation of every position, and which keys
/// every query sees.
#[derive(Clone, Debug)]
pub struct AttentionContext {
    /// `[batch, seq, 1, head_dim]`.
    pub cos: Tensor<4>,
    /// `[batch, seq, 1, head_dim]`.
    pub sin: Tensor<4>,
    /// Added to the scores, `[batch, 1, 1, seq, total]`.
    pub bias: Tensor<5>,
}

impl AttentionContext {
    /// From `real [batch, total]` (true = real token), of which the first `cached` columns are
    /// already in the cache.
    ///
    /// A token's position is the number of real tokens before it, so padding on either side
    /// changes nothing for the real ones.
    ///
    /// # Panics
    ///
    /// When `cached > total`.
    pub fn new(
        rope: &Rope,
        real: Tensor<2, Bool>,
        cached: usize,
        sliding_window: Option<usize>,
    ) -> Self {
        let [batch, total] = real.dims();
        let seq = total - cached;
        let positions = (real.clone().int().cumsum(1) - 1)
            .clamp_min(0)
            .slice([0..batch, cached..total]);
        let (cos, sin) = rope.tables(positions);
        let [.., head_dim] = cos.dims();
        Self {
            cos: cos.reshape([batch, seq, 1, head_dim]),
            sin: sin.reshape([batch, seq, 1, head_dim]),
            bias: attention_bias(real, cached, sliding_window),
        }
    }
}
