//! Whole sparse blocks: the router with its experts.

use anyhow::Context;
use burn::tensor::activation::{relu, silu, softmax};
use burn::tensor::{Device, Tensor};
use moe_lora::router::{
    Capacity, Dispatch, LossKind, SoftmaxTopK, SoftmaxTopKConfig, Switch, SwitchConfig, Tokens,
    balance_loss,
};

use super::super::case::Case;
use super::super::check::Check;
use super::super::device::floats;
use super::super::tensors::Tensors;
use super::bias_balanced::chosen;
use super::probe::{Probe, balance_and_z, close, gradient_tolerance, loss, rows};

/// Switch's block: one expert of two matrices per token, capacity per sequence.
pub fn switch(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let mut probe = Probe::read(tensors, "param.router.classifier.weight")?;
    let bias = "router.classifier.bias";
    if tensors.has(&format!("param.{bias}")) {
        let bias = floats::<1>(tensors, &format!("param.{bias}"), &probe.device)?;
        probe.linear = probe.linear.with_bias(bias);
    }
    let [batch, _, _] = tensors.dims::<3>("x")?;
    let tokens = Tokens::new(probe.x.dims()[0]).in_groups(batch);
    let logits = probe.logits(check, case, tensors)?;
    let router = Switch {
        config: SwitchConfig {
            balance: 0.5,
            z: 0.1,
            ..SwitchConfig::default()
        },
        linear: probe.linear.clone(),
    };
    let capacity = Capacity::Places(case.setting("expert_capacity")? as usize);
    let dispatch = router.route(logits, &tokens, capacity, None);
    let probs = dispatch.scores.clone().context("no probabilities")?;
    close(check, tensors, "probs", &probs, tolerance)?;
    close(check, tensors, "top1_prob", &probs.max_dim(1), tolerance)?;
    check.exact("dispatch", &chosen(&dispatch), &tensors.i64("dispatch")?);
    let mut dropped = vec![1; dispatch.tokens];
    dispatch
        .entries
        .iter()
        .for_each(|entry| dropped[entry.token as usize] = 0);
    check.exact("dropped", &dropped, &tensors.i64("dropped")?);
    balance_and_z(check, tensors, &dispatch, tolerance)?;

    let mut experts = Vec::new();
    for index in 0..dispatch.experts {
        for matrix in ["wi", "wo"] {
            let name = format!("experts.expert_{index}.{matrix}.weight");
            experts.push(Weight::read(tensors, name, &probe.device)?);
        }
    }
    let outputs = experts.chunks(2).map(|pair| {
        let hidden = relu(probe.x.clone().matmul(pair[0].value.clone().transpose()));
        hidden.matmul(pair[1].value.clone().transpose())
    });
    let names = ["grad.x", "grad.router.classifier.weight"];
    let output = blended(&dispatch, outputs);
    close(check, tensors, "output", &output, tolerance)?;
    let total = total(tensors, output, &dispatch)?;
    let gradients = probe.backward(check, case, tensors, total, names)?;
    if let Some(parameter) = &probe.linear.bias {
        let got = parameter
            .val()
            .grad(&gradients)
            .context("no gradient of the bias")?;
        close(check, tensors, &format!("grad.{bias}"), &got, tolerance)?;
    }
    for expert in &experts {
        expert.compare(check, case, tensors, &gradients)?;
    }
    Ok(())
}

/// Mixtral's block, and its balance loss over layers and with padding.
pub fn mixtral(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let probe = Probe::read(tensors, "param.gate.weight")?;
    let top_k = case.setting("top_k")? as usize;
    let count = probe.x.dims()[0];
    let tokens = Tokens::new(count);
    let logits = probe.logits(check, case, tensors)?;
    // Theirs is k where ours is 1.
    let convention = top_k as f64;
    let router = SoftmaxTopK {
        config: SoftmaxTopKConfig {
            top_k,
            balance: 0.5 * convention,
            ..SoftmaxTopKConfig::default()
        },
        linear: probe.linear.clone(),
    };
    let dispatch = router.route(logits, &tokens, None);
    let ids: Vec<i64> = dispatch
        .entries
        .iter()
        .map(|entry| entry.expert.into())
        .collect();
    check.exact("topk_indices", &ids, &tensors.i64("topk_indices")?);
    close(check, tensors, "topk_weights", &dispatch.weights, tolerance)?;
    let kind = (LossKind::Balance, convention);
    loss(
        check,
        tensors,
        "loss_balance_1layer",
        &dispatch,
        kind,
        tolerance,
    )?;

    let matrix = |name: &str| Weight::<3>::read(tensors, format!("experts.{name}"), &probe.device);
    let (gate_up, down) = (matrix("gate_up_proj")?, matrix("down_proj")?);
    let [experts, both, d_model] = gate_up.value.dims();
    let d_ff = both / 2;
    let outputs = (0..experts).map(|index| {
        let of = |weight: &Tensor<3>, dims| weight.clone().narrow(0, index, 1).reshape(dims);
        let hidden = probe
            .x
            .clone()
            .matmul(of(&gate_up.value, [both, d_model]).transpose());
        let up = hidden.clone().narrow(1, d_ff, d_ff);
        let hidden = silu(hidden.narrow(1, 0, d_ff)) * up;
        hidden.matmul(of(&down.value, [d_model, d_ff]).transpose())
    });
    let output = blended(&dispatch, outputs);
    close(check, tensors, "output", &output, tolerance)?;
    let names = ["grad.x", "grad.gate.weight"];
    let total = total(tensors, output, &dispatch)?;
    let gradients = probe.backward(check, case, tensors, total, names)?;
    gate_up.compare(check, case, tensors, &gradients)?;
    down.compare(check, case, tensors, &gradients)?;

    let real: Vec<bool> = tensors
        .i64("attention_mask")?
        .iter()
        .map(|&real| real == 1)
        .collect();
    for (name, real) in [
        ("loss_balance_2layers", vec![true; count]),
        ("loss_balance_2layers_masked", real),
    ] {
        let probe = Probe::read(tensors, "param.gate.weight")?;
        let first = probe.linear.logits(probe.x.clone());
        let second = rows(tensors, "logits_layer2", &probe.device)?;
        let second = first.clone() + (second - first.clone().detach());
        let tokens = Tokens::new(count).with_real(real.clone());
        let layers = [first, second];
        let mut wanted = vec![0; experts];
        for layer in &layers {
            let layer = router.route(layer.clone(), &tokens, None);
            wanted
                .iter_mut()
                .zip(layer.wanted)
                .for_each(|(sum, count)| *sum += count);
        }
        let both = Tokens::new(2 * count).with_real([real.clone(), real].concat());
        let probs = softmax(Tensor::cat(layers.to_vec(), 0), 1);
        let loss = balance_loss(probs, &wanted, &both) * convention;
        close(check, tensors, name, &loss, tolerance)?;
        if name.ends_with("masked") {
            let gradients = loss.backward();
            let got = probe.linear.weight.val().grad(&gradients);
            let got = got.context("no gradient of the masked loss")?.transpose();
            close(
                check,
                tensors,
                "grad_mask2.gate.weight",
                &got,
                gradient_tolerance(case)?,
            )?;
        }
    }
    Ok(())
}

/// An expert's matrix, stored as `param.NAME` and `grad.NAME`.
struct Weight<const D: usize> {
    name: String,
    value: Tensor<D>,
}

impl<const D: usize> Weight<D> {
    fn read(tensors: &Tensors, name: String, device: &Device) -> anyhow::Result<Self> {
        let value = floats::<D>(tensors, &format!("param.{name}"), device)?.require_grad();
        Ok(Self { name, value })
    }

    fn compare(
        &self,
        check: &mut Check,
        case: &Case,
        tensors: &Tensors,
        gradients: &burn::tensor::Gradients,
    ) -> anyhow::Result<()> {
        let name = format!("grad.{}", self.name);
        let got = self
            .value
            .grad(gradients)
            .unwrap_or_else(|| self.value.zeros_like());
        close(check, tensors, &name, &got, gradient_tolerance(case)?)
    }
}

/// `Σ_e gates_e · output_e`, `[tokens, d_model]`.
fn blended(dispatch: &Dispatch, outputs: impl Iterator<Item = Tensor<2>>) -> Tensor<2> {
    let gates = dispatch.gates();
    outputs
        .enumerate()
        .map(|(expert, output)| output * gates.clone().narrow(1, expert, 1))
        .reduce(|sum, output| sum + output)
        .expect("at least one expert")
}

/// The block's output projected, plus the router's losses.
fn total(tensors: &Tensors, output: Tensor<2>, dispatch: &Dispatch) -> anyhow::Result<Tensor<1>> {
    let projection = rows(tensors, "probe_R", &output.device())?;
    let sum = (output * projection).sum();
    Ok(sum + dispatch.auxiliary().context("no losses")?)
}
