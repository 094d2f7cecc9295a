//! Distillation: of classes (LwF), and token by token over a vocabulary.

use anyhow::Context;
use burn::tensor::{Int, Tensor, TensorData};
use moe_cl::methods::{distillation, divergence};

use super::super::case::Case;
use super::super::check::{Check, Tolerance};
use super::super::device::{cpu, values};
use super::super::tensors::Tensors;

/// Compares `Tt.all.*` over all classes and `Tt.active.*` over `active_classes` only.
///
/// # Errors
/// When the fixture cannot be read.
pub fn classes(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    for kind in kinds(tensors) {
        let temperature = temperature(kind)?;
        let new = logits(tensors, "new_logits")?.require_grad();
        let (mut p, mut q) = (logits(tensors, "old_logits")?, new.clone());
        if kind.ends_with(".active") {
            let active = indices(tensors.i64("active_classes")?, &new);
            (p, q) = (p.select(1, active.clone()), q.select(1, active));
        }
        let scaled = distillation(p.clone(), q.clone(), temperature);
        scalar(check, tensors, &format!("{kind}.lossT2"), scaled, tolerance)?;
        let loss = divergence(p, q, temperature).mean();
        scalar(
            check,
            tensors,
            &format!("{kind}.loss"),
            loss.clone(),
            tolerance,
        )?;
        gradient(check, tensors, kind, &new, loss, tolerance)?;
    }
    Ok(())
}

/// Compares `Tt.DIRECTION.*`, where tokens of `mask` 1 count.
///
/// # Errors
/// When the fixture cannot be read.
pub fn tokens(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let mask = tensors.f32("mask")?;
    let real: Vec<i64> = (0..mask.len() as i64)
        .filter(|&index| mask[index as usize] > 0.0)
        .collect();
    for kind in kinds(tensors) {
        let temperature = temperature(kind)?;
        let new = logits(tensors, "new_logits")?.require_grad();
        let old = logits(tensors, "old_logits")?;
        let forward = kind.ends_with("kl_old_new");
        let (p, q) = match forward {
            true => (old, new.clone()),
            false => (new.clone(), old),
        };
        let name = format!("{kind}.per_token");
        let each = values(divergence(p.clone(), q.clone(), temperature));
        check.close(&name, &each, &tensors.f32(&name)?, tolerance);
        let real = indices(real.clone(), &new);
        let (p, q) = (p.select(0, real.clone()), q.select(0, real));
        let loss = divergence(p.clone(), q.clone(), temperature).mean();
        // The method distils the old model into the new one; the other direction has the formula alone.
        let scaled = match forward {
            true => distillation(p, q, temperature),
            false => loss.clone() * temperature.powi(2),
        };
        scalar(
            check,
            tensors,
            &format!("{kind}.loss_T2"),
            scaled,
            tolerance,
        )?;
        scalar(
            check,
            tensors,
            &format!("{kind}.loss"),
            loss.clone(),
            tolerance,
        )?;
        gradient(check, tensors, kind, &new, loss, tolerance)?;
    }
    Ok(())
}

fn kinds(tensors: &Tensors) -> impl Iterator<Item = &str> {
    tensors
        .names()
        .filter_map(|name| name.strip_suffix(".loss"))
}

/// `T2.anything` → 2.
fn temperature(kind: &str) -> anyhow::Result<f64> {
    let number = kind
        .strip_prefix('T')
        .and_then(|rest| rest.rsplit_once('.'))
        .map(|(number, _)| number);
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{kind} names no temperature"))
}

/// `[…, classes]` as `[n, classes]` on the autodiff device.
fn logits(tensors: &Tensors, name: &str) -> anyhow::Result<Tensor<2>> {
    let stored = tensors.f32(name)?;
    let classes = *tensors.shape(name)?.last().context("logits without axes")?;
    let shape = [stored.len() / classes.max(1), classes];
    let device = cpu()?.autodiff();
    Ok(Tensor::from_data(TensorData::new(stored, shape), &device))
}

fn indices(values: Vec<i64>, like: &Tensor<2>) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), &like.device())
}

fn scalar(
    check: &mut Check,
    tensors: &Tensors,
    name: &str,
    got: Tensor<1>,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let got = got.into_scalar::<f32>().into();
    check.scalar(name, got, tensors.f64(name)?[0], tolerance);
    Ok(())
}

/// `KIND.grad_new`: the gradient of the loss without T².
fn gradient(
    check: &mut Check,
    tensors: &Tensors,
    kind: &str,
    new: &Tensor<2>,
    loss: Tensor<1>,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let name = format!("{kind}.grad_new");
    let gradient = new.grad(&loss.backward()).map(values).unwrap_or_default();
    check.close(&name, &gradient, &tensors.f32(&name)?, tolerance);
    Ok(())
}
