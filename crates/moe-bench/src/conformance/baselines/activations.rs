//! What happens inside every block, where the fixture stores it (`act.*`).

use anyhow::Context;
use burn::tensor::Tensor;
use moe_cl::Learner;
use moe_cl::data::Batch;
use moe_lora::{ExpertId, Mix, Routing};

use super::super::check::{Check, Tolerance};
use super::super::device::values;
use super::super::tensors::Tensors;
use super::model::Model;

/// Walks through the layers by hand and compares everything that the fixture stores, at real positions. `learner` is off the
/// autodiff device.
///
/// # Errors
/// When the fixture cannot be read.
pub fn compare(
    check: &mut Check,
    tensors: &Tensors,
    model: &Model,
    learner: &Learner,
    batch: &Batch,
    mix: &Mix,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let real: Vec<bool> = batch
        .texts
        .real
        .clone()
        .into_data()
        .iter::<bool>()
        .collect();
    let base = &model.base;
    let context = base.context(batch.texts.real.clone(), 0);
    let mut x = base.embed(batch.texts.tokens.clone());
    for (index, layer) in base.layers.iter().enumerate() {
        let mut compare = |name: &str, got: &Tensor<3>| -> anyhow::Result<()> {
            let name = format!("act.layers.{index}.{name}");
            if tensors.has(&name) {
                let got = values(got.clone());
                let width = got.len() / real.len();
                let want = tensors.f32(&name)?;
                check.close_where(&name, &got, &want, tolerance, |at| real[at / width]);
            }
            Ok(())
        };
        let normed = layer.input_norm.forward(x.clone());
        x = layer.attention.forward(normed, &context, None) + x;
        let normed = layer.post_attention_norm.forward(x.clone());
        compare("mlp_in", &normed)?;

        let through = |routing: &Routing| match learner.catalogue.bank(index, routing) {
            Some(bank) => {
                let output = bank.forward_block(&layer.feed_forward, normed.clone(), None, None);
                output.output
            }
            None => layer.feed_forward.forward(normed.clone()),
        };
        let alone = |expert| through(&Routing::Single(expert));
        // The fixtures' expert -1 is none.
        compare("expert-1.out", &through(&Routing::Base))?;
        for (id, number) in model.order.iter().enumerate() {
            let output = alone(ExpertId(id as u64));
            compare(&format!("expert{number}.out"), &output)?;
        }
        let fused = match mix {
            Mix::Weighted { experts, weights } => {
                let parts = experts.iter().enumerate().map(|(column, &expert)| {
                    let weight = weights.clone().narrow(1, column, 1);
                    alone(expert) * weight.unsqueeze_dim::<3>(2)
                });
                let sum = parts.reduce(|sum, part| sum + part);
                sum.context("a mix of no expert")?
            }
            Mix::Routed(routing) => through(routing),
            Mix::Summed(_) | Mix::BesideBase(_) | Mix::PerText(_) => {
                anyhow::bail!("no fixture has activations of such a mix")
            }
        };
        compare("fused", &fused)?;
        x = fused + x;
        compare("block_out", &x)?;
    }
    Ok(())
}
