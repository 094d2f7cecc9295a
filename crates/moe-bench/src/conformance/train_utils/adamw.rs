//! AdamW on given gradients, with clipping by the norm of all of them together.

use anyhow::Context;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use moe_cl::training::optimizer::{adamw, clip_by_global_norm, gradient_norm};
use serde_json::Value;

use super::super::case::Case;
use super::super::check::Check;
use super::super::device::{cpu, values};
use super::super::tensors::Tensors;

/// Parameters of any shape, as vectors: the optimizer works entry by entry.
#[derive(Module, Debug)]
struct Vectors {
    all: Vec<Param<Tensor<1>>>,
}

/// Runs every setting of `config` from `NAME.params.0.*` through the gradients `NAME.grad.K.*`.
///
/// # Errors
/// When the fixture cannot be read.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    for (name, settings) in case.json["config"]
        .as_object()
        .context("case.json has no config")?
    {
        sequence(check, case, tensors, name, settings)?;
    }
    Ok(())
}

fn sequence(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    name: &str,
    settings: &Value,
) -> anyhow::Result<()> {
    let tolerance = case.tolerance("params")?;
    let plain = cpu()?;
    let start = arrays(tensors, &format!("{name}.params.0"))?;
    let all = start
        .iter()
        .map(|values| Param::from_tensor(vector(values, &plain.clone().autodiff())))
        .collect();
    let mut module = Vectors { all };
    // What is not stated is PyTorch's default.
    let number = |value: &Value, default: f64| value.as_f64().unwrap_or(default);
    let betas = (
        number(&settings["betas"][0], 0.9),
        number(&settings["betas"][1], 0.999),
    );
    let mut optimizer = adamw(
        betas,
        number(&settings["eps"], 1e-8),
        number(&settings["weight_decay"], 0.01),
    );
    let rate = settings["lr"]
        .as_f64()
        .with_context(|| format!("config.{name} has no lr"))?;
    let mut step = 1;
    while tensors.has(&format!("{name}.grad.{step}.0")) {
        let mut gradients = GradientsParams::new();
        for (parameter, gradient) in module
            .all
            .iter()
            .zip(arrays(tensors, &format!("{name}.grad.{step}"))?)
        {
            gradients.register(parameter.id, vector(&gradient, &plain));
        }
        if let Some(most) = settings["clip"].as_f64() {
            let norm = gradient_norm(&module, &gradients);
            check.scalar(
                &format!("{name}.norm.{step}"),
                norm,
                tensors.f64(&format!("{name}.norm.{step}"))?[0],
                tolerance,
            );
            gradients = clip_by_global_norm(&module, gradients, norm, most);
        }
        module = optimizer.step(rate, module, gradients);
        for (index, (parameter, want)) in module
            .all
            .iter()
            .zip(arrays(tensors, &format!("{name}.params.{step}"))?)
            .enumerate()
        {
            check.close(
                &format!("{name}.params.{step}.{index}"),
                &values(parameter.val()),
                &want,
                tolerance,
            );
        }
        step += 1;
    }
    Ok(())
}

/// `PREFIX.0`, `PREFIX.1`, … as far as they go.
fn arrays(tensors: &Tensors, prefix: &str) -> anyhow::Result<Vec<Vec<f32>>> {
    let names = (0..)
        .map(|index| format!("{prefix}.{index}"))
        .take_while(|name| tensors.has(name));
    names.map(|name| tensors.f32(&name)).collect()
}

fn vector(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(values, device)
}
