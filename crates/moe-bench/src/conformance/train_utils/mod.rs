//! Optimizer, learning-rate schedules, losses and sampling filters.

mod adamw;
mod cross_entropy;
mod sampling;

use anyhow::Context;
use moe_cl::training::Schedule;
use serde_json::{Value, json};

use super::case::Case;
use super::check::{Check, Verdict};

/// Runs a case, told apart by the files and tensors that it has.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    if case.dir.join("values.json").is_file() {
        return schedules(case);
    }
    if !case.dir.join("tensors.safetensors").is_file() {
        return Ok(Verdict::Skip("unknown kind of train_utils case".into()));
    }
    let tensors = case.tensors()?;
    let mut check = Check::default();
    if tensors.names().any(|name| name.contains(".params.")) {
        adamw::compare(&mut check, case, &tensors)?;
    } else if tensors.has("labels") {
        cross_entropy::compare(&mut check, case, &tensors)?;
    } else if tensors.has("input_ids") {
        sampling::compare(&mut check, case, &tensors)?;
    } else {
        return Ok(Verdict::Skip("unknown kind of train_utils case".into()));
    }
    check.note_unused(&tensors);
    Ok(check.verdict())
}

/// `KIND_…` → warm-up, total steps and the factor at every step.
fn schedules(case: &Case) -> anyhow::Result<Verdict> {
    let mut check = Check::default();
    let tolerance = case.tolerance("values")?;
    for (name, one) in case
        .json_file("values.json")?
        .as_object()
        .context("values.json is not a table")?
    {
        let kind = name.split('_').next().unwrap_or(name);
        let Ok(schedule) = serde_json::from_value::<Schedule>(json!(kind)) else {
            check.note(format!("not supported: {name}"));
            continue;
        };
        let steps = |key: &str| {
            one[key]
                .as_u64()
                .map(|steps| steps as usize)
                .with_context(|| format!("{name} has no {key}"))
        };
        let (warmup, total) = (steps("warmup")?, steps("total")?);
        for (step, want) in one["values"]
            .as_array()
            .context("no values")?
            .iter()
            .filter_map(Value::as_f64)
            .enumerate()
        {
            check.scalar(
                &format!("{name}[{step}]"),
                schedule.factor(step, warmup, total),
                want,
                tolerance,
            );
        }
    }
    Ok(check.verdict())
}
