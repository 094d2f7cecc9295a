use burn::module::Module;
use burn::tensor::Tensor;
use moe_kernels::swiglu;

use super::{Linear, linear};

/// SwiGLU: `down(silu(gate(x)) ⊙ up(x))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[d_model, d_ff]`, the side that goes through silu.
    pub gate: Linear,
    /// `[d_model, d_ff]`.
    pub up: Linear,
    /// `[d_ff, d_model]`.
    pub down: Linear,
}

impl FeedForward {
    /// `x [batch, seq, d_model]` → `[batch, seq, d_model]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = linear(&self.gate, x.clone());
        let up = linear(&self.up, x);
        linear(&self.down, swiglu(gate, up))
    }
}
