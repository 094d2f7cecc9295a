//! Filters on logits, each alone and in the order in which generation applies them.

use anyhow::{Context, bail};
use moe_core::generate::{
    Sampling, min_p, penalise_repetition, softmax, temperature, top_k, top_p,
};

use super::super::case::Case;
use super::super::check::{Check, Tolerance};
use super::super::tensors::Tensors;

/// What stands in the fixture for a filtered logit, −∞.
const FILTERED: f32 = -1e30;

/// Compares every tensor whose name is a filter and its setting.
///
/// # Errors
/// When the fixture cannot be read.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let [_, vocab] = tensors.dims::<2>("logits")?;
    let [_, length] = tensors.dims::<2>("input_ids")?;
    let logits = tensors.f32("logits")?;
    let history: Vec<u32> = tensors
        .i64("input_ids")?
        .into_iter()
        .map(|id| id as u32)
        .collect();
    for name in tensors.names() {
        let Some((filter, setting)) = name
            .rsplit_once('_')
            .and_then(|(filter, setting)| Some((filter, setting.parse::<f64>().ok()?)))
        else {
            continue;
        };
        let mut got = logits.clone();
        for (row, logits) in got.chunks_mut(vocab).enumerate() {
            match filter {
                "temperature" => temperature(logits, setting),
                "top_k" => top_k(logits, setting as usize),
                "top_p" => top_p(logits, setting),
                "min_p" => min_p(logits, setting),
                "repetition" => {
                    penalise_repetition(logits, &history[row * length..(row + 1) * length], setting)
                }
                _ => bail!("unknown filter {filter}"),
            }
        }
        check.close(name, &finite(&got), &tensors.f32(name)?, tolerance);
    }
    if tensors.has("order.logits") {
        in_order(check, tensors, &logits, vocab, tolerance)?;
    }
    Ok(())
}

/// Temperature, top-k and top-p one after the other. The fixture does not state their settings, so these are looked for:
/// the temperature is the ratio of any logit that stays, and some k and p must leave exactly what the reference leaves.
fn in_order(
    check: &mut Check,
    tensors: &Tensors,
    logits: &[f32],
    vocab: usize,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let want = tensors.f32("order.logits")?;
    let largest = (0..want.len())
        .filter(|&index| want[index] > FILTERED / 2.0)
        .max_by(|&a, &b| logits[a].abs().total_cmp(&logits[b].abs()));
    let index = largest.context("order.logits keeps nothing")?;
    let ratio = f64::from(logits[index]) / f64::from(want[index]);
    let candidates =
        (1..=vocab).flat_map(|k| (1..=20).map(move |part| (k, f64::from(part) * 0.05)));
    let filtered = |(k, p): (usize, f64)| {
        let sampling = Sampling {
            temperature: ratio,
            top_k: Some(k),
            top_p: Some(p),
            ..Sampling::greedy()
        };
        let mut got = logits.to_vec();
        got.chunks_mut(vocab).for_each(|row| sampling.filter(row));
        got
    };
    let same = |got: &[f32]| {
        got.iter()
            .zip(&want)
            .all(|(got, want)| got.is_finite() == (*want > FILTERED / 2.0))
    };
    let Some((k, p)) = candidates.into_iter().find(|&pair| same(&filtered(pair))) else {
        check.holds(false, || {
            "tensor order.logits: no k and p leave what the reference leaves".into()
        });
        return Ok(());
    };
    check.note(format!(
        "order.*: settings not stated, temperature {ratio:.3} k {k} p {p:.2} found"
    ));
    let got = filtered((k, p));
    check.close("order.logits", &finite(&got), &want, tolerance);
    let probabilities: Vec<f32> = got.chunks(vocab).flat_map(softmax).collect();
    check.close(
        "probs.order",
        &probabilities,
        &tensors.f32("probs.order")?,
        tolerance,
    );
    Ok(())
}

fn finite(logits: &[f32]) -> Vec<f32> {
    logits
        .iter()
        .map(|&logit| {
            if logit == f32::NEG_INFINITY {
                FILTERED
            } else {
                logit
            }
        })
        .collect()
}
