//! Gradients of the loss with the balance loss, with respect to the base's own weights.

use anyhow::Context;
use burn::module::{Module, Param};
use burn::tensor::{Gradients, Tensor};
use moe_cl::cross_entropy;
use moe_core::model::{Decoder, SparseFeedForward};

use super::super::base_gradients;
use super::super::case::Case;
use super::super::check::Check;
use super::super::device::{all_real, tokens, values};
use super::super::tensors::Tensors;
use super::Pass;

/// Compares every `grad.NAME`.
pub fn compare(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    decoder: Decoder,
) -> anyhow::Result<()> {
    let tolerance = case.tolerance("gradients")?;
    let device = decoder.device();
    let decoder = decoder.set_require_grad(true).train();
    let ids = tokens(tensors, "full.input_ids", &device)?;
    let [batch, seq] = ids.dims();
    let pass = Pass::new(&decoder, ids, all_real([batch, seq], &device));
    let labels = tensors.i64("full.labels")?;
    let follows = |&place: &usize| place % seq > 0 && labels[place] >= 0;
    let places: Vec<usize> = (0..labels.len()).filter(follows).collect();
    let before: Vec<i64> = places.iter().map(|&place| place as i64 - 1).collect();
    let before = Tensor::<1, burn::tensor::Int>::from_data(before.as_slice(), &device);
    let targets: Vec<usize> = places.iter().map(|&place| labels[place] as usize).collect();
    let loss = cross_entropy(pass.logits.clone().select(0, before), &targets);
    let balance = pass.balance(&vec![1; batch * seq]) * case.setting("router_aux_loss_coef")?;
    let gradients = (loss + balance).backward();
    let names = tensors.names().filter(|name| name.starts_with("grad."));
    let names: Vec<String> = names.map(str::to_string).collect();
    for name in names {
        let of = name.trim_start_matches("grad.");
        let got = gradient(&decoder, of, &gradients)
            .or_else(|| base_gradients::gradient(&decoder, of, &gradients))
            .with_context(|| format!("no gradient of {of}"))?;
        check.close(&name, &got, &tensors.f32(&name)?, tolerance);
    }
    Ok(())
}

/// Of a weight of a mixture, by its name in memory: `experts.gate_up_proj [experts, 2 · d_ff, d_model]`, `experts.down_proj
/// [experts, d_model, d_ff]`, the others `[out, in]`.
fn gradient(decoder: &Decoder, name: &str, gradients: &Gradients) -> Option<Vec<f32>> {
    let (layer, name) = name.strip_prefix("model.layers.")?.split_once(".mlp.")?;
    let layer = decoder.layers.get(layer.parse::<usize>().ok()?)?;
    let sparse: &SparseFeedForward = layer.feed_forward.sparse()?;
    let stacked = |matrices: &Param<Tensor<3>>| {
        let gradient = matrices.val().grad(gradients)?;
        Some(gradient.swap_dims(1, 2))
    };
    match name {
        "experts.gate_up_proj" => {
            let both = vec![stacked(&sparse.gate)?, stacked(&sparse.up)?];
            return Some(values(Tensor::cat(both, 1)));
        }
        "experts.down_proj" => return stacked(&sparse.down).map(values),
        _ => {}
    }
    let shared = sparse.shared.as_ref();
    let matrix = match name {
        "gate.weight" => &sparse.router,
        "shared_expert.gate_proj.weight" => &shared?.feed_forward.gate,
        "shared_expert.up_proj.weight" => &shared?.feed_forward.up,
        "shared_expert.down_proj.weight" => &shared?.feed_forward.down,
        "shared_expert_gate.weight" => &shared?.gate,
        _ => return None,
    };
    let gradient = matrix.weight.float()?.val().grad(gradients)?;
    Some(values(gradient.transpose()))
}
