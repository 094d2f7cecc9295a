//! MoE-CL as its authors' modules compute it: activations, losses, gradients, and AdamW steps over a stream of tasks.

mod activations;
pub mod experts;
pub mod loss;
pub mod method;
pub mod model;
mod steps;

use anyhow::Context;

use super::case::Case;
use super::check::{Check, Verdict};
use super::device::{mask, values};
use super::tensors::Tensors;
use loss::Losses;
use model::Model;

/// Runs a case, told apart by the tensors that it has.
///
/// # Errors
/// When the fixture cannot be read or does not describe a model that can be built.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    if tensors.has("step1.tokens") {
        steps::run(case, &tensors)
    } else if tensors.has("tokens") {
        single_step(case)
    } else {
        Ok(Verdict::Skip("unknown kind of moe_cl case".into()))
    }
}

/// Forward, losses and the gradient of every parameter.
fn single_step(case: &Case) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    let model = Model::read(case, &tensors)?;
    let task = case.setting("task_id")? as usize;
    let mut check = Check::default();
    let (forward, losses) = (case.tolerance("forward")?, case.tolerance("losses")?);
    let real = tensors.i64("attention_mask")?;

    let got = Losses::compute(case, &tensors, &model, "", task)?;
    let logits = got.logits.clone();
    let width = logits.len() / real.len();
    check.close_where(
        "logits",
        &logits,
        &tensors.f32("logits")?,
        forward,
        |index| real[index / width] == 1,
    );
    if real.contains(&0) {
        // The reference numbers padding positions on, this project does not; neither is ever read.
        check.note("padding positions not compared");
    }
    got.compare(&mut check, &tensors, "", losses)?;
    got.evaluation(&mut check, &tensors, forward)?;
    visibility(&mut check, &tensors, &model)?;
    activations::compare(&mut check, &tensors, &model, task, forward)?;

    let gradients = got.objective.backward();
    let tolerance = case.tolerance("grads")?;
    for name in tensors
        .names()
        .filter_map(|name| name.strip_prefix("grad."))
    {
        let want = tensors.f32(&format!("grad.{name}"))?;
        match model.parameter(name)?.val().grad(&gradients) {
            Some(gradient) => check.close(
                &format!("grad.{name}"),
                &values(gradient.transpose()),
                &want,
                tolerance,
            ),
            None => check.holds(false, || format!("tensor grad.{name} got `no gradient`")),
        }
    }
    method::compare(&mut check, case, &tensors, &model, task, tolerance)?;
    for name in case.json["parameters_without_gradient"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let name = name.as_str().context("a parameter's name is not a text")?;
        let gradient = model.parameter(name)?.val().grad(&gradients);
        check.holds(gradient.is_none(), || {
            format!("tensor grad.{name} got `a gradient` want `none`")
        });
    }
    check.note_unused(&tensors);
    Ok(check.verdict())
}

/// Which keys every real token sees, against the reference's additive mask: 0 where it sees one, very negative where not.
fn visibility(check: &mut Check, tensors: &Tensors, model: &Model) -> anyhow::Result<()> {
    let name = "causal_mask_additive";
    if !tensors.has(name) {
        return Ok(());
    }
    let real = mask(tensors, "attention_mask", &model.base.device())?;
    let [_, seq] = real.dims();
    let (got, want) = (
        values(model.base.context(real, 0).bias()),
        tensors.f32(name)?,
    );
    let flags = tensors.i64("attention_mask")?;
    let wrong = (0..want.len())
        .find(|&index| flags[index / seq] == 1 && (got[index] == 0.0) != (want[index] == 0.0));
    check.holds(got.len() == want.len() && wrong.is_none(), || {
        format!("tensor {name}{wrong:?} got another visibility")
    });
    Ok(())
}
