//! The two training objectives: a classification head per task, or the label generated as text.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use moe_core::model::Decoder;

use crate::{data::Batch, learner::Learner};

/// Mean loss of the task on a batch, shape `[1]`.
///
/// `hidden [batch, seq, d_model]` is the decoder's output after its last norm.
/// - With a head: cross-entropy of the task's head on what it reads of each text.
/// - Without: next-token cross-entropy at the answer's tokens only; the vocabulary is read at those positions only, and no
///   logits are kept.
pub fn task_loss(
    base: &Decoder,
    learner: &Learner,
    task: usize,
    hidden: Tensor<3>,
    batch: &Batch,
) -> Tensor<1> {
    match learner.head(task) {
        Some(head) => cross_entropy(head.forward(hidden, batch), &batch.labels),
        None => {
            let targets: Vec<usize> = batch.answer_tokens.iter().map(|&t| t as usize).collect();
            let predicting = rows(hidden, &batch.answer_positions);
            base.log_probabilities(predicting, &targets).mean().neg()
        }
    }
}

/// `hidden [batch, seq, d_model]` → logits `[answer tokens, vocab_size]` at the positions that predict the answers' tokens.
pub fn answer_logits(base: &Decoder, hidden: Tensor<3>, batch: &Batch) -> Tensor<2> {
    base.logits(rows(hidden, &batch.answer_positions))
}

/// `hidden [batch, seq, d_model]` → `[n, d_model]` at the given indices into `batch · seq`.
pub(crate) fn rows(hidden: Tensor<3>, positions: &[usize]) -> Tensor<2> {
    let [batch, seq, d_model] = hidden.dims();
    let device = hidden.device();
    hidden
        .reshape([batch * seq, d_model])
        .select(0, indices(positions, &device))
}

/// Mean cross-entropy of `logits [n, classes]` against `targets [n]`, shape `[1]`.
pub fn cross_entropy(logits: Tensor<2>, targets: &[usize]) -> Tensor<1> {
    let device = logits.device();
    let targets = indices(targets, &device).unsqueeze_dim(1);
    log_softmax(logits, 1).gather(1, targets).mean().neg()
}

fn indices(values: &[usize], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.iter().map(|&value| value as i64).collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_uniform_prediction_costs_the_log_of_the_number_of_classes() {
        let logits = Tensor::<2>::zeros([3, 4], &Device::flex());
        let loss: f32 = cross_entropy(logits, &[0, 1, 3]).into_scalar();
        assert!((loss - 4f32.ln()).abs() < 1e-6);
    }
}
