//! Cross-entropy: the project's own, and burn's for class weights and label smoothing, which the project does not use.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};
use moe_cl::cross_entropy;

use super::super::case::Case;
use super::super::check::Check;
use super::super::device::{cpu, values};
use super::super::tensors::Tensors;

/// Compares `KIND.loss` and `KIND.grad` of every kind; a label below 0 does not count.
///
/// # Errors
/// When the fixture cannot be read.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let device = cpu()?.autodiff();
    let [rows, classes] = tensors.dims::<2>("logits")?;
    let labels = tensors.i64("labels")?;
    let kept: Vec<i64> = (0..rows as i64)
        .filter(|&row| labels[row as usize] >= 0)
        .collect();
    let targets: Vec<usize> = kept
        .iter()
        .map(|&row| labels[row as usize] as usize)
        .collect();
    let (count, stored) = (kept.len(), tensors.f32("logits")?);
    let picked = Tensor::<1, Int>::from_data(TensorData::new(kept, [count]), &device);
    let numbers: Vec<i64> = targets.iter().map(|&target| target as i64).collect();
    let numbers = Tensor::<1, Int>::from_data(TensorData::new(numbers, [count]), &device);

    for kind in tensors
        .names()
        .filter_map(|name| name.strip_suffix(".loss"))
    {
        let logits =
            Tensor::<2>::from_data(TensorData::new(stored.clone(), [rows, classes]), &device)
                .require_grad();
        let chosen = logits.clone().select(0, picked.clone());
        let burn = CrossEntropyLossConfig::new();
        let loss = match kind {
            "mean" => cross_entropy(chosen, &targets),
            "sum" => cross_entropy(chosen, &targets) * count as f64,
            "double_softmax" => cross_entropy(softmax(chosen, 1), &targets),
            "weighted" => {
                let weights = tensors.f32("class_weights")?;
                burn.with_weights(Some(weights))
                    .init(&device)
                    .forward(chosen, numbers.clone())
            }
            _ => match kind
                .strip_prefix("smooth")
                .and_then(|amount| amount.parse().ok())
            {
                Some(amount) => burn
                    .with_smoothing(Some(amount))
                    .init(&device)
                    .forward(chosen, numbers.clone()),
                None => {
                    check.note(format!("not supported: {kind}"));
                    continue;
                }
            },
        };
        check.scalar(
            &format!("{kind}.loss"),
            loss.clone().into_scalar::<f32>().into(),
            tensors.f64(&format!("{kind}.loss"))?[0],
            tolerance,
        );
        let gradients = loss.backward();
        match logits.grad(&gradients) {
            Some(gradient) => check.close(
                &format!("{kind}.grad"),
                &values(gradient),
                &tensors.f32(&format!("{kind}.grad"))?,
                tolerance,
            ),
            None => check.holds(false, || format!("tensor {kind}.grad got `no gradient`")),
        }
    }
    Ok(())
}
