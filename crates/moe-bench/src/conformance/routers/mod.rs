//! Routers of sparse mixtures: choices, slots, weights, losses and gradients. What a case is, is read from its settings and tensors.

mod bias_balanced;
mod blocks;
mod expert_slots;
mod jacobs;
mod megatron;
mod noisy;
mod probe;

use super::case::Case;
use super::check::{Check, Verdict};

/// Runs a case.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    let mut check = Check::default();
    let config = &case.json["config"];
    if tensors.has("expert_out") {
        jacobs::compare(&mut check, case, &tensors)?;
    } else if tensors.has("w_noise") {
        noisy::compare(&mut check, case, &tensors)?;
    } else if tensors.has("step0.x") {
        bias_balanced::updates(&mut check, case, &tensors)?;
    } else if tensors.has("bias") && tensors.has("chosen") {
        bias_balanced::compare(&mut check, case, &tensors)?;
    } else if tensors.has("param.router.classifier.weight") {
        blocks::switch(&mut check, case, &tensors)?;
    } else if tensors.has("param.gate.weight") {
        blocks::mixtral(&mut check, case, &tensors)?;
    } else if config["use_pre_softmax"].is_boolean() {
        megatron::compare(&mut check, case, &tensors)?;
    } else if tensors.has("combine") && tensors.shape("combine")?.len() >= 3 {
        expert_slots::compare(&mut check, case, &tensors)?;
    } else {
        return Ok(Verdict::Skip("unknown kind of routers case".into()));
    }
    check.note_unused(&tensors);
    Ok(check.verdict())
}
