use burn::tensor::{Bool, Tensor};

use super::{Rope, attention_bias};

/// What all layers of one forward pass share: the rotation of every position, and which keys
/// every query sees.
#[derive(Clone, Debug)]
pub struct AttentionContext {
    /// `[batch, seq, 1, head_dim / 2]`.
    pub cos: Tensor<4>,
    /// `[batch, seq, 1, head_dim / 2]`.
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
        let positions = (real.clone().int().cumsum(1) - 1)
            .clamp_min(0)
            .slice([0..batch, cached..total]);
        let (cos, sin) = rope.tables(positions);
        // Both halves of a table are equal; one is enough.
        let half = |table: Tensor<3>| {
            let [.., head_dim] = table.dims();
            table.narrow(2, 0, head_dim / 2).unsqueeze_dim(2)
        };
        Self {
            cos: half(cos),
            sin: half(sin),
            bias: attention_bias(real, cached, sliding_window),
        }
    }
}
