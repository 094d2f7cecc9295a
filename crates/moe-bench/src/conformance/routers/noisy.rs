//! Noisy top-k gating with the noise given.

use anyhow::Context;
use burn::tensor::Tensor;
use moe_lora::router::noisy_top_k::{chance_of_choice, importance};
use moe_lora::router::{
    GateNoise, LossKind, NoisyTopK, NoisyTopKConfig, RouterLinear, Tokens, Variance, cv_squared,
};

use super::super::case::Case;
use super::super::check::Check;
use super::super::device::{cpu, floats};
use super::super::tensors::Tensors;
use super::probe::{close, loss, projected};

/// Compares gates, load, importance, the losses with either variance, and gradients.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let device = cpu()?.autodiff();
    let top_k = case.setting("k")? as usize;
    let linear = |name: &str| -> anyhow::Result<RouterLinear> {
        Ok(RouterLinear::from_weight(floats::<2>(
            tensors, name, &device,
        )?))
    };
    let router = NoisyTopK {
        config: NoisyTopKConfig {
            top_k,
            importance: 0.5,
            load: 0.5,
            variance: Variance::Unbiased,
        },
        gate: linear("w_gate")?,
        noise: linear("w_noise")?,
    };
    let x = floats::<2>(tensors, "x", &device)?.require_grad();
    let [count, _] = x.dims();
    let tokens = Tokens::new(count);
    let clean = router.gate.logits(x.clone());
    close(check, tensors, "clean_logits", &clean, tolerance)?;
    let deviation = router.deviation(x.clone());
    close(check, tensors, "noise_std", &deviation, tolerance)?;
    let normal = tensors.f32("noise")?;
    let noisy = clean.clone() + deviation.clone() * floats::<2>(tensors, "noise", &device)?;
    close(check, tensors, "noisy_logits", &noisy, tolerance)?;

    let noise = GateNoise {
        deviation: deviation.clone(),
        normal: &normal,
    };
    let dispatch = router.route(clean.clone(), Some(noise), &tokens);
    let chosen: Vec<i64> = dispatch
        .entries
        .iter()
        .map(|entry| entry.expert.into())
        .collect();
    check.exact("topk_indices", &chosen, &tensors.i64("topk_indices")?);
    close(check, tensors, "gates", &dispatch.gates(), tolerance)?;
    let sums = importance(&dispatch);
    close(check, tensors, "importance", &sums, tolerance)?;
    let both = (LossKind::Importance, 1.0);
    loss(check, tensors, "cv2_importance", &dispatch, both, tolerance)?;
    let biased = cv_squared(sums, Variance::Biased);
    close(check, tensors, "cv2_importance_biased", &biased, tolerance)?;
    if top_k < dispatch.experts {
        let chance = chance_of_choice(&clean, &noisy, &deviation, top_k, &tokens);
        close(check, tensors, "prob_in_top_k", &chance, tolerance)?;
        let load: Tensor<1> = chance.sum_dim(0).reshape([dispatch.experts]);
        close(check, tensors, "load", &load, tolerance)?;
        loss(
            check,
            tensors,
            "cv2_load",
            &dispatch,
            (LossKind::Load, 1.0),
            tolerance,
        )?;
        let biased = cv_squared(load, Variance::Biased);
        close(check, tensors, "cv2_load_biased", &biased, tolerance)?;
    }
    let auxiliary = dispatch.auxiliary().context("no losses")?;
    close(
        check,
        tensors,
        "loss_balance",
        &(auxiliary * 2.0),
        tolerance,
    )?;

    let plain = router.route(clean, None, &tokens);
    close(
        check,
        tensors,
        "eval.gates_plain",
        &plain.gates(),
        tolerance,
    )?;

    let total = projected(tensors, &dispatch)?;
    close(check, tensors, "probe_loss", &total, tolerance)?;
    let gradients = total.backward();
    for (name, parameter) in [
        ("grad_x", x),
        ("grad_w_gate", router.gate.weight.val()),
        ("grad_w_noise", router.noise.weight.val()),
    ] {
        let got = parameter
            .grad(&gradients)
            .with_context(|| format!("there is no {name}"))?;
        close(check, tensors, name, &got, tolerance)?;
    }
    Ok(())
}
