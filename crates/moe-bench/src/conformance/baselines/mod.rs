//! The methods that MoE-CL is compared with: whole training steps on a small decoder, and the formulas that they are made of.

mod activations;
mod distillation;
mod ewc;
mod model;
mod projection;
mod step;

use super::case::Case;
use super::check::{Check, Verdict};

/// Runs a case, told apart by its settings and tensors.
///
/// # Errors
/// When the fixture cannot be read or does not describe a model that can be built.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    let mut check = Check::default();
    let has = |end: &str| tensors.names().any(|name| name.ends_with(end));
    if tensors.has("old.tokens") {
        ewc::decoder(&mut check, case, &tensors)?;
    } else if tensors.has("task0.x") {
        ewc::perceptron(&mut check, case, &tensors)?;
    } else if has(".dot") {
        projection::compare(&mut check, case, &tensors)?;
    } else if tensors.has("new_logits") && tensors.has("mask") {
        distillation::tokens(&mut check, case, &tensors)?;
    } else if tensors.has("new_logits") {
        distillation::classes(&mut check, case, &tensors)?;
    } else if tensors.has("tokens") {
        if let Some(reason) = step::compare(&mut check, case, &tensors)? {
            return Ok(Verdict::Skip(reason));
        }
    } else {
        return Ok(Verdict::Skip("unknown kind of baselines case".into()));
    }
    check.note_unused(&tensors);
    Ok(check.verdict())
}
