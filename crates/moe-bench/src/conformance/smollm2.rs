//! The real base model: logits, likeliest tokens, greedy text, mean loss, gradients and tokenizer.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Context;
use burn::tensor::{Int, Tensor};
use moe_core::checkpoint::Checkpoint;
use moe_core::generate::{Sampling, generate};
use moe_core::model::Decoder;
use moe_core::tokenizer::Tokenizer;
use moe_hub::{BaseSource, Cache};
use serde_json::Value;

use super::base_gradients;
use super::case::Case;
use super::check::{Check, Verdict};
use super::device::{all_real, cpu, flat, values};
use super::llama::log_sum_exp;
use super::tensors::Tensors;

/// Names a base on this machine, instead of the one that the case names.
const BASE_VARIABLE: &str = "MOE_CL_BASE";

/// Runs a case, told apart by what it has.
///
/// # Errors
/// When the fixture or the base cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let path = match base(&case.json["base"]) {
        Ok(path) => path,
        Err(reason) => return Ok(Verdict::Skip(reason)),
    };
    let checkpoint = Checkpoint::open(&path)?;
    if case.json["cases"].is_array() {
        tokenizer(case, &checkpoint)
    } else if case.dir.join("tensors.safetensors").is_file() {
        prompt(case, &checkpoint)
    } else {
        Ok(Verdict::Skip("unknown kind of smollm2 case".into()))
    }
}

/// Where the base is; fetched once for all cases. The error is the reason to skip.
fn base(json: &Value) -> Result<PathBuf, String> {
    static FETCHED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FETCHED.get_or_init(|| fetch(json)).clone()
}

fn fetch(json: &Value) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(BASE_VARIABLE) {
        return Ok(path.into());
    }
    let name = json["source"].as_str().ok_or("the case names no base")?;
    let fetched = name
        .parse::<BaseSource>()
        .and_then(|source| source.fetch(&Cache::open()?, &mut |_| {}));
    fetched.map_err(|error| {
        super::one_line(&format!(
            "{name} cannot be had (or set {BASE_VARIABLE}): {error}"
        ))
    })
}

fn tokenizer(case: &Case, checkpoint: &Checkpoint) -> anyhow::Result<Verdict> {
    let tokenizer = checkpoint.tokenizer()?;
    let mut check = Check::default();
    for (index, one) in case.json["cases"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let text = one["text"].as_str().context("no text")?;
        let ids: Vec<u32> = one["ids"]
            .as_array()
            .context("no ids")?
            .iter()
            .filter_map(Value::as_u64)
            .map(|id| id as u32)
            .collect();
        check.exact(
            &format!("cases[{index}].ids"),
            &tokenizer.encode(text, false)?,
            &ids,
        );
        if let Some(decoded) = one["decoded"].as_str() {
            check.exact(
                &format!("cases[{index}].decoded"),
                &[tokenizer.decode(&ids, false)?],
                &[decoded.to_string()],
            );
        }
    }
    Ok(check.verdict())
}

fn prompt(case: &Case, checkpoint: &Checkpoint) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    let device = cpu()?;
    let decoder = Decoder::load(checkpoint, &device)?;
    let tokenizer = checkpoint.tokenizer()?;
    let mut check = Check::default();

    let ids: Vec<i64> = tensors.i64("input_ids")?;
    let plain: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    if let Some(text) = case.json["prompt"].as_str() {
        check.exact("prompt", &tokenizer.encode(text, false)?, &plain);
    }
    let tokens = Tensor::<1, Int>::from_data(ids.as_slice(), &device).reshape([1, ids.len()]);
    let hidden = decoder.forward(tokens.clone(), all_real([1, ids.len()], &device));
    let logits = decoder.logits(flat(hidden));
    let [_, vocab] = logits.dims();
    let logits = values(logits);
    compare_logits(&mut check, case, &tensors, &logits, vocab)?;

    let nll = mean_loss(&logits, &ids, vocab);
    check.scalar(
        "mean_next_token_nll",
        nll,
        tensors.f64("mean_next_token_nll")?[0],
        case.tolerance("mean_next_token_nll")?,
    );
    greedy(&mut check, case, &tensors, &decoder, &tokenizer, &plain)?;
    if case.json["grad_reference"].is_object() {
        base_gradients::compare(
            &mut check,
            &case.json["grad_reference"],
            decoder,
            tokens,
            case.tolerance("logits")?,
        )?;
    }
    check.note_unused(&tensors);
    Ok(check.verdict())
}

/// The rows that `positions` names, and the likeliest ten of every row.
fn compare_logits(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    logits: &[f32],
    vocab: usize,
) -> anyhow::Result<()> {
    let row = |position: usize| &logits[position * vocab..(position + 1) * vocab];
    let picked: Vec<f32> = tensors
        .i64("positions")?
        .iter()
        .flat_map(|&position| row(position as usize).to_vec())
        .collect();
    check.close(
        "logits",
        &picked,
        &tensors.f32("logits")?,
        case.tolerance("logits")?,
    );
    let [rows, top] = tensors.dims::<2>("top10_ids")?;
    let (ids, want) = (tensors.i64("top10_ids")?, tensors.f32("top10_logits")?);
    let mut got = Vec::with_capacity(ids.len());
    for position in 0..rows {
        got.extend(
            ids[position * top..(position + 1) * top]
                .iter()
                .map(|&id| row(position)[id as usize]),
        );
    }
    let tolerance = case.tolerance("top10_logits")?;
    check.close("top10_logits", &got, &want, tolerance);
    // The named ten are the likeliest: nothing else is above the last of them by more than the tolerance.
    for position in 0..rows {
        let named = &ids[position * top..(position + 1) * top];
        let last = f64::from(want[(position + 1) * top - 1]);
        let slack = 2.0 * (tolerance.atol + tolerance.rtol * last.abs());
        let intruder = (0..vocab).find(|&id| {
            f64::from(row(position)[id]) > last + slack && !named.contains(&(id as i64))
        });
        check.holds(intruder.is_none(), || {
            format!("tensor top10_ids[{position}] misses {intruder:?}")
        });
    }
    Ok(())
}

fn mean_loss(logits: &[f32], ids: &[i64], vocab: usize) -> f64 {
    let losses = ids[1..].iter().enumerate().map(|(position, &next)| {
        let row = &logits[position * vocab..(position + 1) * vocab];
        log_sum_exp(row) - f64::from(row[next as usize])
    });
    losses.sum::<f64>() / (ids.len() - 1) as f64
}

fn greedy(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    prompt: &[u32],
) -> anyhow::Result<()> {
    let want: Vec<u32> = tensors
        .i64("greedy_ids")?
        .into_iter()
        .map(|id| id as u32)
        .collect();
    // The reference keeps the end token; ours ends before it, so it is left to be generated like any other.
    let got = generate(
        decoder,
        &[prompt.to_vec()],
        want.len(),
        &Sampling::greedy(),
        &[],
    )?;
    check.exact("greedy_ids", &got.concat(), &want);
    if let Some(text) = case.json["greedy_text"].as_str() {
        check.exact(
            "greedy_text",
            &[tokenizer.decode(&want, false)?],
            &[text.to_string()],
        );
    }
    Ok(())
}
