//! Dense mixture of linear experts: competitive likelihood against the blend's error.

use anyhow::Context;
use burn::tensor::Tensor;
use moe_lora::router::jacobs::{competitive_loss, posterior};
use moe_lora::router::{Jacobs, Tokens};

use super::super::case::Case;
use super::super::check::Check;
use super::super::device::floats;
use super::super::tensors::Tensors;
use super::probe::{Probe, close};

/// Compares the outputs, both losses and their gradients.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    for kind in ["nll", "mse"] {
        // Once for each loss: a graph is walked back once.
        let probe = Probe::read(tensors, "router_weight")?;
        let logits = probe.logits(check, case, tensors)?;
        let experts = floats::<3>(tensors, "expert_weight", &probe.device)?.require_grad();
        let target = floats::<2>(tensors, "target", &probe.device)?;
        let [tokens, out] = target.dims();
        let outputs = probe
            .x
            .clone()
            .unsqueeze_dim::<3>(0)
            .matmul(experts.clone().transpose());
        let outputs = outputs.swap_dims(0, 1); // [tokens, experts, out]
        let dispatch = Jacobs::route(logits.clone(), &Tokens::new(tokens));
        let gates = dispatch.gates();
        let blended = (gates.clone().unsqueeze_dim::<3>(2) * outputs.clone()).sum_dim(1);
        let blended = blended.reshape([tokens, out]);
        let loss: Tensor<1> = if kind == "nll" {
            close(check, tensors, "probs", &gates, tolerance)?;
            close(check, tensors, "expert_out", &outputs, tolerance)?;
            close(check, tensors, "blended", &blended, tolerance)?;
            let shares = posterior(logits.clone(), outputs.clone(), target.clone());
            close(check, tensors, "posterior", &shares, tolerance)?;
            let error = competitive_loss(logits, outputs, target);
            close(check, tensors, "jacobs_error", &error, tolerance)?;
            error + 0.5 * out as f64 * std::f64::consts::TAU.ln()
        } else {
            (blended - target).powi_scalar(2).sum() / tokens as f64
        };
        close(check, tensors, kind, &loss, tolerance)?;
        let (x, weight) = (
            format!("grad_{kind}.x"),
            format!("grad_{kind}.router_weight"),
        );
        let gradients = probe.gradients(check, case, tensors, loss, [&x, &weight])?;
        let got = experts
            .grad(&gradients)
            .context("no gradient reached the experts")?;
        let name = format!("grad_{kind}.expert_weight");
        close(check, tensors, &name, &got, tolerance)?;
    }
    Ok(())
}
