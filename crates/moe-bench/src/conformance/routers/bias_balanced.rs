//! Balance by a bias: DeepSeek-V3's router, and how the bias follows the loads.

use burn::tensor::Tensor;
use moe_lora::router::{
    BiasBalanced, BiasBalancedConfig, Dispatch, ExpertGroups, Rebalance, RouterLinear, Tokens,
};

use super::super::case::Case;
use super::super::check::Check;
use super::super::device::{cpu, floats};
use super::super::tensors::Tensors;
use super::probe::{Probe, close, projected};

/// Compares choice, weights and gradients under a given bias.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let probe = Probe::read(tensors, "router_weight")?;
    let groups = ExpertGroups {
        groups: case.setting("groups")? as usize,
        top_groups: case.setting("top_groups")? as usize,
    };
    let config = BiasBalancedConfig {
        top_k: case.setting("top_k")? as usize,
        grouped: (groups.groups > 1).then_some(groups),
        normalize: case.json["config"]["norm_topk_prob"].as_bool() == Some(true),
        scale: case.setting("routed_scaling_factor")?,
        ..BiasBalancedConfig::default()
    };
    let bias = floats::<1>(tensors, "bias", &probe.device)?;
    let router = BiasBalanced::from_parts(config, probe.linear.clone(), bias);
    let logits = probe.logits(check, case, tensors)?;
    let dispatch = router.route(logits, &Tokens::new(probe.x.dims()[0]));
    if let Some(scores) = &dispatch.scores {
        close(check, tensors, "scores", scores, tolerance)?;
    }
    check.exact("chosen", &chosen(&dispatch), &tensors.i64("chosen")?);
    close(check, tensors, "combine", &dispatch.gates(), tolerance)?;
    let loss = projected(tensors, &dispatch)?;
    let gradients = probe.backward(check, case, tensors, loss, ["grad_x", "grad_router_weight"])?;
    let moved = router.bias.val().grad(&gradients).is_some();
    check.holds(!moved, || "the bias has a gradient".into());
    Ok(())
}

/// Compares the bias after every step, by either rule.
pub fn updates(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let device = cpu()?;
    let top_k = case.setting("top_k")? as usize;
    let weight = floats::<2>(tensors, "router_weight", &device)?;
    let skew = floats::<1>(tensors, "logit_skew", &device)?;
    let linear = RouterLinear::from_weight(weight.transpose()).with_bias(skew);
    let config = BiasBalancedConfig {
        top_k,
        normalize: top_k > 1,
        scale: 1.0,
        rate: case.setting("rate")?,
        ..BiasBalancedConfig::default()
    };
    for (library, how) in [
        ("megatron", Rebalance::Paper),
        ("torchtitan", Rebalance::Centred),
    ] {
        let start = Tensor::zeros([linear.experts()], &device);
        let mut router = BiasBalanced::from_parts(config, linear.clone(), start);
        for step in (0..).take_while(|step| tensors.has(&format!("step{step}.x"))) {
            let x = floats::<2>(tensors, &format!("step{step}.x"), &device)?;
            let tokens = Tokens::new(x.dims()[0]);
            let logits = router.linear.logits(x);
            close(
                check,
                tensors,
                &format!("step{step}.logits"),
                &logits,
                tolerance,
            )?;
            let dispatch = router.route(logits, &tokens);
            let name = |what: &str| format!("step{step}.{library}.{what}");
            let probs = name("routing_probs");
            if tensors.has(&probs) {
                close(check, tensors, &probs, &dispatch.gates(), tolerance)?;
            }
            let load: Vec<f64> = dispatch.wanted.iter().map(|&count| count.into()).collect();
            check.exact(&name("counts"), &load, &tensors.f64(&name("counts"))?);
            router = router.rebalanced(&load, how);
            let after = name("bias_after");
            close(check, tensors, &after, &router.bias.val(), tolerance)?;
        }
    }
    Ok(())
}

/// `[tokens, experts]`, 1 where a token goes.
pub fn chosen(dispatch: &Dispatch) -> Vec<i64> {
    let mut map = vec![0; dispatch.tokens * dispatch.experts];
    for entry in &dispatch.entries {
        map[entry.token as usize * dispatch.experts + entry.expert as usize] = 1;
    }
    map
}
