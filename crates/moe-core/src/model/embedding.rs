use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use moe_kernels::Matrix;

use super::Weight;

/// A row of features for every token of the vocabulary.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab_size, d_model]`, as numbers or as blocks.
    pub weight: Weight,
}

impl Embedding {
    /// `tokens [batch, seq]` → `[batch, seq, d_model]` in f32, on `device` where the rows are in blocks.
    pub(super) fn forward(&self, tokens: Tensor<2, Int>, device: &Device) -> Tensor<3> {
        match &self.weight {
            Weight::Float(rows) => {
                burn::tensor::module::embedding(rows.val(), tokens).cast(DType::F32)
            }
            Weight::Blocks(rows) => {
                let ([batch, seq], [_, d_model]) = (tokens.dims(), rows.dims());
                let places: Vec<usize> = tokens
                    .into_data()
                    .iter::<i64>()
                    .map(|id| id as usize)
                    .collect();
                let numbers = TensorData::new(rows.select(&places), [batch, seq, d_model]);
                Tensor::from_data(numbers, device)
            }
        }
    }

    /// As the head of a model that has no other, `[d_model, vocab_size]`.
    pub(super) fn as_head(&self) -> Matrix {
        match &self.weight {
            Weight::Float(rows) => Matrix::Float(rows.val().transpose()),
            Weight::Blocks(rows) => Matrix::Blocks(rows.clone()),
        }
    }
}
