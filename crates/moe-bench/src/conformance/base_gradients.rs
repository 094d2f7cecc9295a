//! Gradients of the base's own weights. Training freezes them; here they are moved to the autodiff device to hold the backward pass
//! of the whole decoder against the reference.

use anyhow::Context;
use burn::module::{Module, Param};
use burn::nn::RmsNorm;
use burn::tensor::{Gradients, Int, Tensor};
use moe_cl::cross_entropy;
use moe_core::model::Decoder;
use serde_json::Value;

use super::check::{Check, Tolerance};
use super::device::{all_real, flat, values};

/// Sums over a whole gradient keep about as many digits as its norm has; single entries fewer.
const OF_NORM: f64 = 1e-3;

/// Compares loss, norm, sum and first entries of the gradients that `reference` lists.
///
/// # Errors
/// When the reference names a weight that the decoder does not have.
pub fn compare(
    check: &mut Check,
    reference: &Value,
    decoder: Decoder,
    tokens: Tensor<2, Int>,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let device = decoder.device();
    let decoder = decoder.set_require_grad(true).train();
    let [batch, seq] = tokens.dims();
    let hidden = decoder.forward(tokens.clone(), all_real([batch, seq], &device));
    let targets: Vec<usize> = tokens
        .into_data()
        .iter::<i64>()
        .skip(1)
        .map(|id| id as usize)
        .collect();
    let logits = decoder.logits(flat(hidden)).narrow(0, 0, seq - 1);
    let loss = cross_entropy(logits, &targets);
    let want = reference["loss"]
        .as_f64()
        .context("grad_reference has no loss")?;
    check.scalar(
        "grad_reference.loss",
        loss.clone().into_scalar::<f32>().into(),
        want,
        tolerance,
    );

    let gradients = loss.backward();
    for (name, want) in reference
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "loss")
    {
        let got = gradient(&decoder, name, &gradients)
            .with_context(|| format!("no gradient of {name}"))?;
        let norm = got
            .iter()
            .map(|&value| f64::from(value).powi(2))
            .sum::<f64>()
            .sqrt();
        let wanted_norm = want["fro_norm"].as_f64().context("no fro_norm")?;
        let absolute = Tolerance {
            rtol: 0.0,
            atol: OF_NORM * wanted_norm,
        };
        check.scalar(
            &format!("grad.{name}.fro_norm"),
            norm,
            wanted_norm,
            absolute,
        );
        if let Some(sum) = want["sum"].as_f64() {
            // A sum of n entries of random sign is about as large as the norm, its rounding no larger.
            check.scalar(
                &format!("grad.{name}.sum"),
                got.iter().map(|&value| f64::from(value)).sum(),
                sum,
                absolute,
            );
        }
        for (key, wanted) in want.as_object().into_iter().flatten() {
            let Some(count) = key
                .strip_prefix("first")
                .and_then(|rest| rest.strip_suffix("_of_row0"))
                .and_then(|count| count.parse::<usize>().ok())
            else {
                continue;
            };
            let wanted: Vec<f32> = wanted
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_f64)
                .map(|value| value as f32)
                .collect();
            let largest = wanted
                .iter()
                .fold(0.0f32, |largest, value| largest.max(value.abs()));
            let each = Tolerance {
                rtol: 1e-3,
                atol: 1e-3 * f64::from(largest),
            };
            check.close(
                &format!("grad.{name}.{key}"),
                &got[..count.min(got.len())],
                &wanted,
                each,
            );
        }
    }
    Ok(())
}

/// The gradient of a weight under its Hugging Face name, in Hugging Face's orientation.
pub fn gradient(decoder: &Decoder, name: &str, gradients: &Gradients) -> Option<Vec<f32>> {
    if name == "model.embed_tokens.weight" {
        let rows = decoder.embedding.weight.float()?;
        return rows.val().grad(gradients).map(values);
    }
    if let Some(norm) = norm(decoder, name) {
        return norm.gamma.val().grad(gradients).map(values);
    }
    let parameter = parameter(decoder, name)?;
    parameter
        .val()
        .grad(gradients)
        .map(|gradient| values(gradient.transpose()))
}

fn parameter<'a>(decoder: &'a Decoder, name: &str) -> Option<&'a Param<Tensor<2>>> {
    if name == "lm_head.weight" {
        return decoder.lm_head.as_ref()?.weight.float();
    }
    let parts: Vec<&str> = name.split('.').collect();
    let ["model", "layers", layer, block, projection, "weight"] = parts.as_slice() else {
        return None;
    };
    let layer = decoder.layers.get(layer.parse::<usize>().ok()?)?;
    let linear = match (*block, *projection) {
        ("mlp", "gate_proj") => &layer.feed_forward.dense()?.gate,
        ("mlp", "up_proj") => &layer.feed_forward.dense()?.up,
        ("mlp", "down_proj") => &layer.feed_forward.dense()?.down,
        ("self_attn", "q_proj") => &layer.attention.query,
        ("self_attn", "k_proj") => &layer.attention.key,
        ("self_attn", "v_proj") => &layer.attention.value,
        ("self_attn", "o_proj") => &layer.attention.output,
        _ => return None,
    };
    linear.weight.float()
}

fn norm<'a>(decoder: &'a Decoder, name: &str) -> Option<&'a RmsNorm> {
    if name == "model.norm.weight" {
        return Some(&decoder.norm);
    }
    let rest = name
        .strip_prefix("model.layers.")?
        .strip_suffix(".weight")?;
    let (layer, norm) = rest.split_once('.')?;
    let layer = decoder.layers.get(layer.parse::<usize>().ok()?)?;
    match norm {
        "input_layernorm" => Some(&layer.input_norm),
        "post_attention_layernorm" => Some(&layer.post_attention_norm),
        _ => None,
    }
}
