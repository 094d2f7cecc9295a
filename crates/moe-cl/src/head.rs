//! A task's classification head, and what of a text it reads.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use moe_lora::mean_of_tokens;
use rand::{Rng, RngExt};

use crate::{config::Pooling, data::Batch, objective::rows};

/// A linear classification head without bias.
#[derive(Module, Debug)]
pub struct Head {
    /// `[d_model, classes]`
    pub weight: Param<Tensor<2>>,
    #[module(skip)]
    pooling: Pooling,
}

impl Head {
    /// A head of the given weights `[d_model, classes]`.
    pub fn new(weight: Tensor<2>, pooling: Pooling) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            pooling,
        }
    }

    /// All zeros.
    pub fn zeros(d_model: usize, classes: usize, pooling: Pooling, device: &Device) -> Self {
        Self::new(Tensor::zeros([d_model, classes], device), pooling)
    }

    /// Uniform in ±1/√`d_model`: PyTorch's default for a linear layer, which the MoE-CL authors use.
    pub fn random(
        d_model: usize,
        classes: usize,
        pooling: Pooling,
        rng: &mut impl Rng,
        device: &Device,
    ) -> Self {
        let bound = 1.0 / (d_model as f32).sqrt();
        let values: Vec<f32> = (0..d_model * classes)
            .map(|_| rng.random_range(-bound..bound))
            .collect();
        let values = TensorData::new(values, [d_model, classes]);
        Self::new(Tensor::from_data(values, device), pooling)
    }

    /// What of a text it reads.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// What it reads of the decoder's output after its last norm: `hidden [batch, seq, d_model]` → `[batch, d_model]`.
    pub fn features(&self, hidden: Tensor<3>, batch: &Batch) -> Tensor<2> {
        match self.pooling {
            Pooling::Last => last_token(hidden, &batch.lengths),
            Pooling::Mean => mean_of_tokens(hidden, batch.texts.real.clone()),
        }
    }

    /// `features [n, d_model]` → logits `[n, classes]`.
    pub fn score(&self, features: Tensor<2>) -> Tensor<2> {
        features.matmul(self.weight.val())
    }

    /// `hidden [batch, seq, d_model]` → logits `[batch, classes]`.
    pub fn forward(&self, hidden: Tensor<3>, batch: &Batch) -> Tensor<2> {
        self.score(self.features(hidden, batch))
    }
}

/// `hidden [batch, seq, d_model]` → `[batch, d_model]` at the last real token of each row of a right-padded batch.
///
/// The MoE-CL authors pool at (first pad − 1) in training and at (sum of the mask − 1) in evaluation;
/// for right-padded texts both are this position.
fn last_token(hidden: Tensor<3>, lengths: &[usize]) -> Tensor<2> {
    let [_batch, seq, _d_model] = hidden.dims();
    let positions: Vec<usize> = lengths
        .iter()
        .enumerate()
        .map(|(row, length)| row * seq + length - 1)
        .collect();
    rows(hidden, &positions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Example;

    /// What a head reads of two texts of three tokens and one, whose hidden states are the numbers from 0 on.
    fn read(pooling: Pooling) -> Vec<f32> {
        let device = Device::flex();
        let text = |length: usize| Example {
            tokens: vec![1; length],
            label: Some(0),
            answers: Vec::new(),
        };
        let texts = [text(3), text(1)];
        let batch = Batch::new(&texts.iter().collect::<Vec<_>>(), 0, &device);
        let hidden = Tensor::<1>::from_data([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &device);
        let head = Head::new(Tensor::ones([1, 1], &device), pooling);
        let features = head.features(hidden.reshape([2, 3, 1]), &batch);
        features.into_data().iter::<f32>().collect()
    }

    #[test]
    fn padding_is_not_read() {
        assert_eq!(read(Pooling::Last), [2.0, 3.0]);
        assert_eq!(read(Pooling::Mean), [1.0, 3.0]);
    }
}
