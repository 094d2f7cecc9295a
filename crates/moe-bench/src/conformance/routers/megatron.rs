//! Softmax before or after the choice, and dropping by weight.

use moe_lora::router::{Capacity, Priority, SoftmaxTopK, SoftmaxTopKConfig, Tokens, TopKWeights};

use super::super::case::Case;
use super::super::check::Check;
use super::super::tensors::Tensors;
use super::bias_balanced::chosen;
use super::probe::{Probe, balance_and_z, close, projected};

/// Compares the routing with and without drops, the losses and the gradients.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let probe = Probe::read(tensors, "router_weight")?;
    let top_k = case.setting("k")? as usize;
    let raw = case.json["config"]["use_pre_softmax"].as_bool() == Some(true);
    let tokens = Tokens::new(probe.x.dims()[0]);
    let logits = probe.logits(check, case, tensors)?;
    let mut router = SoftmaxTopK {
        config: SoftmaxTopKConfig {
            top_k,
            weights: if raw {
                TopKWeights::Raw
            } else {
                TopKWeights::Chosen
            },
            capacity: Capacity::Unlimited,
            priority: Priority::Weight,
            balance: 0.5,
            z: 0.1,
        },
        linear: probe.linear.clone(),
    };
    let whole = router.route(logits.clone(), &tokens, None);
    close(check, tensors, "routing_probs", &whole.gates(), tolerance)?;
    check.exact("routing_map", &chosen(&whole), &tensors.i64("routing_map")?);

    router.config.capacity = Capacity::factor(case.setting("capacity_factor")?);
    let dispatch = router.route(logits, &tokens, None);
    balance_and_z(check, tensors, &dispatch, tolerance)?;
    let total = projected(tensors, &dispatch)?;
    let gradients = ["grad_x", "grad_router_weight"];
    if top_k == 1 && !raw {
        // All weights are 1: who stays is the toss of a sort, and how many stay is not.
        let (mut load, map) = (vec![0; dispatch.experts], tensors.i64("dropped_map")?);
        for row in map.chunks(dispatch.experts) {
            row.iter()
                .zip(&mut load)
                .for_each(|(kept, load)| *load += *kept as u32);
        }
        check.exact("tokens kept per expert", &dispatch.load(), &load);
        check.note("weights tie: dropped_probs and probe_loss say which of equals stay");
        probe.gradients(check, case, tensors, total, gradients)?;
    } else {
        check.exact(
            "dropped_map",
            &chosen(&dispatch),
            &tensors.i64("dropped_map")?,
        );
        close(
            check,
            tensors,
            "dropped_probs",
            &dispatch.gates(),
            tolerance,
        )?;
        probe.backward(check, case, tensors, total, gradients)?;
    }
    Ok(())
}
