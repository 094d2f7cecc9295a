//! Between the two halves of the feed-forward network, where experts are mixed and pooled.

use burn::tensor::Tensor;
use moe_core::model::{FeedForward, Linear};
use moe_kernels::{linear, swiglu};

use crate::dropout::ExpertDropout;
use crate::{LayerExpert, Lora, Projection};

/// What all experts of a layer start from; `tokens = batch · seq`.
pub(crate) struct Start {
    /// `[tokens, d_model]`.
    pub(crate) x: Tensor<2>,
    /// The base's `gate(x) [tokens, d_ff]`.
    pub(crate) gate: Tensor<2>,
    /// The base's `up(x) [tokens, d_ff]`.
    pub(crate) up: Tensor<2>,
}

impl Start {
    pub(crate) fn new(ffn: &FeedForward, x: Tensor<2>) -> Self {
        Self {
            gate: linear(x.clone(), ffn.gate.weight.val()),
            up: linear(x.clone(), ffn.up.weight.val()),
            x,
        }
    }

    /// The same numbers, without a way back to what made them.
    pub(crate) fn detach(&self) -> Self {
        Self {
            x: self.x.clone().detach(),
            gate: self.gate.clone().detach(),
            up: self.up.clone().detach(),
        }
    }
}

/// One expert's activations, or a weighted sum of several experts', on the way into `down`.
#[derive(Clone)]
pub(crate) struct Hidden {
    /// `silu(gate) ⊙ up`, `[rows, d_ff]`; goes through the base's matrix.
    h: Tensor<2>,
    /// Per expert with a LoRA on `down`: `scaling · h A [rows, rank]` and `B [rank, d_model]`.
    low_rank: Vec<(Tensor<2>, Tensor<2>)>,
}

impl Hidden {
    pub(crate) fn new(expert: &LayerExpert, start: &Start, dropout: Option<ExpertDropout>) -> Self {
        let drop = |x: &Tensor<2>, projection| match &dropout {
            Some(dropout) => dropout.apply(x.clone(), projection),
            None => x.clone(),
        };
        let adapted = |lora: &Option<Lora>, base: &Tensor<2>, projection| match lora {
            Some(lora) => lora.forward(drop(&start.x, projection)) + base.clone(),
            None => base.clone(),
        };
        let h = swiglu(
            adapted(&expert.gate, &start.gate, Projection::Gate),
            adapted(&expert.up, &start.up, Projection::Up),
        );
        let low_rank = expert
            .down
            .iter()
            .map(|lora| (lora.reduce(drop(&h, Projection::Down)), lora.b.val()))
            .collect();
        Self { h, low_rank }
    }

    /// Both parts through `f`, which has to be linear.
    fn map(self, f: impl Fn(Tensor<2>) -> Tensor<2>) -> Self {
        let low_rank = self.low_rank.into_iter();
        Self {
            h: f(self.h),
            low_rank: low_rank.map(|(reduced, b)| (f(reduced), b)).collect(),
        }
    }

    /// Times `weight [rows, 1]`.
    pub(crate) fn weigh(self, weight: Tensor<2>) -> Self {
        self.map(|y| y * weight.clone())
    }

    /// Times a number.
    pub(crate) fn scale(self, weight: f64) -> Self {
        self.map(|y| y * weight)
    }

    /// `shares [batch, seq]` of the tokens' rows → `[batch, …]`.
    pub(crate) fn pool(self, shares: Tensor<2>) -> Self {
        let [batch, seq] = shares.dims();
        let shares = shares.reshape([batch, 1, seq]);
        self.map(|y| {
            let [_, width] = y.dims();
            let y = y.reshape([batch, seq, width]);
            shares.clone().matmul(y).reshape([batch, width])
        })
    }

    /// Sum of two experts' activations.
    pub(crate) fn add(mut self, other: Self) -> Self {
        self.h = self.h + other.h;
        self.low_rank.extend(other.low_rank);
        self
    }

    /// Through `down`: one base product, and one for all experts' B; `[rows, d_model]`.
    pub(crate) fn project(self, down: &Linear) -> Tensor<2> {
        let y = linear(self.h, down.weight.val());
        if self.low_rank.is_empty() {
            return y;
        }
        let (reduced, b) = self.low_rank.into_iter().unzip();
        Tensor::cat(reduced, 1).matmul(Tensor::cat(b, 0)) + y
    }
}
