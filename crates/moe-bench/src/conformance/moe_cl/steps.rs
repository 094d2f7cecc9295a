//! Training steps with AdamW over a stream of tasks: losses, gradients and every parameter after each step.

use std::collections::BTreeMap;

use anyhow::Context;
use burn::optim::GradientsParams;
use moe_cl::training::optimizer::adamw;

use super::super::case::Case;
use super::super::check::{Check, Tolerance, Verdict};
use super::super::device::values;
use super::super::tensors::Tensors;
use super::loss::{Losses, task_of_step};
use super::model::Model;

/// Runs the steps one after another, with a fresh optimizer state for every task.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case, tensors: &Tensors) -> anyhow::Result<Verdict> {
    let mut model = Model::read(case, tensors)?;
    let mut check = Check::default();
    let settings = &case.json["config"]["optimizer"];
    let setting = |key: &str| {
        settings[key]
            .as_f64()
            .with_context(|| format!("case.json has no number config.optimizer.{key}"))
    };
    let betas = (
        settings["betas"][0].as_f64().context("no betas")?,
        settings["betas"][1].as_f64().context("no betas")?,
    );
    if settings["name"] != "AdamW" || settings["amsgrad"].as_bool().unwrap_or(false) {
        return Ok(Verdict::Skip(format!(
            "optimizer {settings} is not supported"
        )));
    }
    let (rate, epsilon, decay) = (setting("lr")?, setting("eps")?, setting("weight_decay")?);
    let outliers = Outliers::read(case, rate)?;
    let mut optimizer = adamw(betas, epsilon, decay);
    let mut task_before = None;
    let mut step = 1;
    while tensors.has(&format!("step{step}.tokens")) {
        let prefix = format!("step{step}.");
        let task = task_of_step(tensors, &prefix)?;
        if task_before
            .replace(task)
            .is_some_and(|before| before != task)
        {
            optimizer = adamw(betas, epsilon, decay);
        }
        let losses = Losses::compute(case, tensors, &model, &prefix, task)?;
        losses.compare(&mut check, tensors, &prefix, case.tolerance("losses")?)?;
        let gradients = losses.objective.backward();
        let before = parameters(tensors, &model, &prefix)?;
        let mut moving = Vec::new();
        for name in before.keys() {
            let gradient = model.parameter(name)?.val().grad(&gradients);
            let stored = format!("{prefix}grad.{name}");
            match (gradient, tensors.has(&stored)) {
                (Some(gradient), true) => {
                    check.close(
                        &stored,
                        &values(gradient.transpose()),
                        &tensors.f32(&stored)?,
                        case.tolerance("grads")?,
                    );
                    moving.push(name.clone());
                }
                (None, false) => {}
                (got, _) => check.holds(false, || {
                    format!(
                        "tensor {stored} got {} want the contrary",
                        if got.is_some() { "one" } else { "none" }
                    )
                }),
            }
        }
        let gradients = GradientsParams::from_grads(gradients, &model.learner);
        model.learner = optimizer.step(rate, model.learner, gradients);
        let after = parameters(tensors, &model, &prefix)?;
        for (name, values) in &after {
            // No gradient, no step: not even weight decay.
            if !moving.contains(name) {
                check.exact(
                    &format!("{prefix}after.{name} (unmoved)"),
                    values,
                    &before[name],
                );
            }
        }
        outliers.compare(&mut check, tensors, &prefix, &after, step)?;
        step += 1;
    }
    check.note(format!("{} steps", step - 1));
    check.note_unused(tensors);
    Ok(check.verdict())
}

/// Every parameter that the fixture lists after a step, in the fixture's orientation.
fn parameters(
    tensors: &Tensors,
    model: &Model,
    prefix: &str,
) -> anyhow::Result<BTreeMap<String, Vec<f32>>> {
    let after = format!("{prefix}after.");
    let names = tensors.names().filter_map(|name| name.strip_prefix(&after));
    names
        .map(|name| {
            Ok((
                name.to_string(),
                values(model.parameter(name)?.val().transpose()),
            ))
        })
        .collect()
}

/// AdamW divides by √v: where a gradient is near 0 its sign is a matter of rounding, and the entry moves by a whole rate.
/// A few such entries may leave the tolerance, by a bounded amount.
struct Outliers {
    tolerance: Tolerance,
    share: f64,
    per_step: f64,
}

impl Outliers {
    /// From `params_after` and the sentence `max_allowed_outliers` (`at most 0.5% … by more than 2.2*lr per step taken`).
    fn read(case: &Case, rate: f64) -> anyhow::Result<Self> {
        let rule = case.json["tolerance"]["max_allowed_outliers"]
            .as_str()
            .unwrap_or_default();
        let number_before = |mark: &str| -> Option<f64> {
            rule.split_once(mark)?.0.rsplit(' ').next()?.parse().ok()
        };
        Ok(Self {
            tolerance: case.tolerance("params_after")?,
            share: number_before("%").unwrap_or(0.0) / 100.0,
            per_step: number_before("*lr").unwrap_or(0.0) * rate,
        })
    }

    fn compare(
        &self,
        check: &mut Check,
        tensors: &Tensors,
        prefix: &str,
        after: &BTreeMap<String, Vec<f32>>,
        step: usize,
    ) -> anyhow::Result<()> {
        let (mut entries, mut outside) = (0, 0);
        for (name, got) in after {
            let name = format!("{prefix}after.{name}");
            let want = tensors.f32(&name)?;
            let off = |index: usize| (f64::from(got[index]) - f64::from(want[index])).abs();
            let beyond: Vec<usize> = (0..want.len())
                .filter(|&index| off(index) > self.tolerance.allowed(want[index].into()))
                .collect();
            entries += want.len();
            outside += beyond.len();
            let far = beyond
                .iter()
                .find(|&&index| off(index) > self.per_step * step as f64);
            check.holds(far.is_none(), || {
                format!("tensor {name}{far:?} is off by more than an outlier may be")
            });
            check.close_where(&name, got, &want, self.tolerance, |index| {
                !beyond.contains(&index)
            });
        }
        check.holds(outside as f64 <= self.share * entries as f64, || {
            format!(
                "tensor {prefix}after.*: {outside} of {entries} entries are outside {}",
                self.tolerance
            )
        });
        if outside > 0 {
            check.note(format!(
                "{prefix}after: {outside} of {entries} entries are outliers"
            ));
        }
        Ok(())
    }
}
