//! What happens inside every block, where the fixture stores it (`act.*`).

use anyhow::Context;
use burn::module::Module;
use burn::tensor::activation::softmax;
use moe_core::model::rms_norm;
use moe_lora::{Routing, pool_shares};

use super::super::check::{Check, Tolerance};
use super::super::device::{mask, tokens, values};
use super::super::tensors::Tensors;
use super::loss::{GATE, OBSERVE, SHARED, dedicated, routing};
use super::model::{Model, discriminators};

/// Walks through the layers by hand and compares everything that the fixture stores, at real positions.
///
/// # Errors
/// When the fixture cannot be read.
pub fn compare(
    check: &mut Check,
    tensors: &Tensors,
    model: &Model,
    task: usize,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    if !tensors.names().any(|name| name.starts_with("act.")) {
        return Ok(());
    }
    let device = model.base.device();
    let learner = model.learner.valid();
    let flags = tensors.i64("attention_mask")?;
    let real = mask(tensors, "attention_mask", &device)?;
    let context = model.base.context(real.clone(), 0);
    let shares = pool_shares(real);
    let dropout = model.dropout.as_ref();
    let mut x = model.base.embed(tokens(tensors, "tokens", &device)?);
    let discriminators = discriminators(&learner).context("no discriminators")?;
    for (index, (layer, discriminator)) in model.base.layers.iter().zip(discriminators).enumerate()
    {
        let bank = |routing: &Routing| {
            let bank = learner.catalogue.bank(index, routing);
            bank.context("a layer without experts")
        };
        let mut compare = |name: &str, got: Vec<f32>| -> anyhow::Result<()> {
            let name = format!("act.layers.{index}.{name}");
            if tensors.has(&name) {
                // Per-token arrays are compared at real positions, per-row ones whole.
                let per_token = tensors.shape(&name)?.len() == 3;
                let width = if per_token {
                    got.len() / flags.len()
                } else {
                    1
                };
                check.close_where(&name, &got, &tensors.f32(&name)?, tolerance, |index| {
                    !per_token || flags[index / width.max(1)] == 1
                });
            }
            Ok(())
        };
        x = layer
            .attention
            .forward(rms_norm(&layer.input_norm, x.clone()), &context, None)
            + x;
        let normed = rms_norm(&layer.post_attention_norm, x.clone());
        compare("mlp_in", values(normed.clone()))?;
        for expert in [SHARED, dedicated(task)] {
            let alone = bank(&Routing::Single(expert))?.forward_block(
                &layer.feed_forward,
                normed.clone(),
                None,
                dropout,
            );
            compare(&format!("expert{expert}.out"), values(alone.output))?;
        }
        let mixture = bank(&routing(task))?.forward_block(
            &layer.feed_forward,
            normed.clone(),
            Some((&OBSERVE, shares.clone())),
            dropout,
        );
        let [batch, seq, d_model] = normed.dims();
        let gate_logits = normed
            .reshape([batch * seq, d_model])
            .matmul(learner.catalogue.gate(GATE).layers[index].weight.val());
        compare("gate_logits", values(gate_logits))?;
        if let Some(gate) = mixture.gate {
            compare("gate_weights", values(gate))?;
        }
        if let Some(pooled) = mixture.pooled {
            compare("pooled_shared", values(pooled.clone()))?;
            let logits = discriminator.logits(pooled);
            compare("classifier_logits", values(logits.clone()))?;
            compare("classifier_probs", values(softmax(logits, 1)))?;
        }
        compare("fused", values(mixture.output.clone()))?;
        x = mixture.output + x;
        compare("block_out", values(x.clone()))?;
    }
    Ok(())
}
