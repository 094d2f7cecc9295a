use std::sync::OnceLock;

use burn::tensor::{Bool, Tensor};

use super::Rope;

/// What all layers of one forward pass share: the rotation of every position, and which keys
/// every query sees.
#[derive(Clone, Debug)]
pub struct AttentionContext {
    /// Of the new tokens, `[batch, seq, head_dim / 2]`.
    pub cos: Tensor<3>,
    /// Of the new tokens, `[batch, seq, head_dim / 2]`.
    pub sin: Tensor<3>,
    /// 1 for a token, 0 for padding, cached positions first, `[batch, total]`.
    pub real: Tensor<2>,
    /// How many of the positions were cached before.
    pub cached: usize,
    /// How many positions a query sees, its own included; all earlier ones without a window.
    pub window: Option<usize>,
    bias: OnceLock<Tensor<5>>,
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
        Self {
            cos,
            sin,
            real: real.float(),
            cached,
            window: sliding_window,
            bias: OnceLock::new(),
        }
    }

    /// What is added to the scores, `[batch, 1, 1, seq, total]`; made when it is first asked for.
    pub fn bias(&self) -> Tensor<5> {
        let bias = || {
            let real = self.real.clone().greater_elem(0.5);
            moe_kernels::attention_bias(real, self.cached, self.window)
        };
        self.bias.get_or_init(bias).clone()
    }
}
