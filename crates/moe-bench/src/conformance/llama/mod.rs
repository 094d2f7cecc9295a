//! Tiny checkpoints of the Llama family: logits, hidden states, padding, rotary tables, greedy generation; and a tokenizer.

pub(super) mod generation;
mod tokenizer;

use burn::tensor::{Int, Tensor};
use moe_core::checkpoint::Checkpoint;
use moe_core::model::{Decoder, Residual};

use super::bad_config::with_config;
use super::case::Case;
use super::check::{Check, Tolerance, Verdict};
use super::device::{all_real, cpu, flat, mask, tokens, values};
use super::tensors::Tensors;

/// Runs a case, told apart by the files that it has.
///
/// # Errors
/// When the fixture, or its checkpoint, cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    if case.dir.join("model").is_dir() {
        checkpoint(case)
    } else if case.dir.join("tokenizer.json").is_file() {
        tokenizer::run(case)
    } else {
        Ok(Verdict::Skip("unknown kind of llama case".into()))
    }
}

fn checkpoint(case: &Case) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    let device = cpu()?;
    let folder = case.dir.join("model");
    let checkpoint = Checkpoint::open(&folder)?;
    let decoder = Decoder::load(&checkpoint, &device)?;
    let tolerance = case.tolerance("f32_logits_and_hidden")?;
    let mut check = Check::default();

    let older = folder.join("config_v4_style.json");
    if older.is_file() {
        let copy = with_config(&folder, &std::fs::read_to_string(&older)?)?;
        let same = Checkpoint::open(copy.path())?.config() == checkpoint.config();
        check.holds(same, || {
            "config_v4_style.json is read as other settings than config.json".into()
        });
    }
    full(&mut check, case, &tensors, &decoder, tolerance)?;
    for side in ["right", "left"] {
        if tensors.has(&format!("{side}.input_ids")) {
            padded(&mut check, &tensors, &decoder, side, tolerance)?;
        }
    }
    if tensors.has("rope.cos") {
        rope(
            &mut check,
            &tensors,
            &decoder,
            case.tolerance("rope_tables")?,
        )?;
    }
    for group in ["gen", "genbatch"] {
        if tensors.has(&format!("{group}.prompt")) {
            generation::compare(&mut check, &tensors, &decoder, group, tolerance)?;
        }
    }
    check.note_unused(&tensors);
    Ok(check.verdict())
}

/// Without padding: every hidden state, logits and the next-token loss.
fn full(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    decoder: &Decoder,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let device = decoder.device();
    let ids = tokens(tensors, "full.input_ids", &device)?;
    let context = decoder.context(all_real(ids.dims(), &device), 0);
    let mut x = Residual::new(decoder.embed(ids.clone()));
    for (index, layer) in decoder.layers.iter().enumerate() {
        check.close(
            &format!("full.hidden.{index}"),
            &values(x.clone().into_sum()),
            &tensors.f32(&format!("full.hidden.{index}"))?,
            tolerance,
        );
        layer.forward(&mut x, &context, None);
    }
    let last = format!("full.hidden.{}", decoder.layers.len());
    let hidden = decoder.forward(ids.clone(), all_real(ids.dims(), &device));
    check.close(
        &last,
        &values(hidden.clone()),
        &tensors.f32(&last)?,
        tolerance,
    );
    let [_, seq] = ids.dims();
    let logits = values(decoder.logits(flat(hidden)));
    check.close(
        "full.logits",
        &logits,
        &tensors.f32("full.logits")?,
        tolerance,
    );
    let name = "full.logits_bf16_compute";
    if tensors.has(name) {
        check.close(
            name,
            &logits,
            &tensors.f32(name)?,
            case.tolerance("bf16_logits")?,
        );
    }
    let loss = next_token_loss(&logits, &tensors.i64("full.labels")?, seq);
    check.scalar("full.loss", loss, tensors.f64("full.loss")?[0], tolerance);
    Ok(())
}

/// Mean cross-entropy of position t against label t+1; label −100 does not count.
pub(super) fn next_token_loss(logits: &[f32], labels: &[i64], seq: usize) -> f64 {
    let vocab = logits.len() / labels.len();
    let (mut sum, mut kept) = (0.0, 0);
    for (row, label) in labels
        .iter()
        .enumerate()
        .filter(|&(row, &label)| row % seq > 0 && label >= 0)
    {
        let row = &logits[(row - 1) * vocab..row * vocab];
        sum += log_sum_exp(row) - f64::from(row[*label as usize]);
        kept += 1;
    }
    sum / f64::from(kept)
}

/// `ln Σ exp` of a row of logits.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest
        + row
            .iter()
            .map(|&logit| (f64::from(logit) - largest).exp())
            .sum::<f64>()
            .ln()
}

/// With padding on one side: real positions only.
fn padded(
    check: &mut Check,
    tensors: &Tensors,
    decoder: &Decoder,
    side: &str,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let device = decoder.device();
    let ids = tokens(tensors, &format!("{side}.input_ids"), &device)?;
    let real_name = format!("{side}.attention_mask");
    let hidden = decoder.forward(ids, mask(tensors, &real_name, &device)?);
    let [_, _, d_model] = hidden.dims();
    let real = tensors.i64(&real_name)?;
    let name = format!("{side}.final_hidden_mask_positions");
    check.close_where(
        &name,
        &values(hidden.clone()),
        &tensors.f32(&name)?,
        tolerance,
        |index| real[index / d_model] == 1,
    );
    let logits = decoder.logits(flat(hidden));
    let [_, vocab] = logits.dims();
    let logits = values(logits);
    // RoPE is relative, so positions that count the padding give the same logits.
    for name in [
        format!("{side}.logits_mask_positions"),
        format!("{side}.logits_default_positions"),
    ] {
        if tensors.has(&name) {
            check.close_where(&name, &logits, &tensors.f32(&name)?, tolerance, |index| {
                real[index / vocab] == 1
            });
        }
    }
    let positions = tensors.i64(&format!("{side}.position_ids"))?;
    let seq = tensors.dims::<2>(&real_name)?[1];
    let counted = |index: usize| real[index / seq * seq..=index].iter().sum::<i64>() - 1;
    let agree = (0..real.len()).all(|index| real[index] == 0 || positions[index] == counted(index));
    check.holds(agree, || {
        format!(
            "{side}.position_ids are not cumsum(mask) - 1, which is what this project implements"
        )
    });
    Ok(())
}

/// Frequencies, and tables for positions 0, 1, ….
fn rope(
    check: &mut Check,
    tensors: &Tensors,
    decoder: &Decoder,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let [seq, _head_dim] = tensors.dims::<2>("rope.cos")?;
    let positions = Tensor::<1, Int>::arange(0..seq as i64, &decoder.device()).reshape([1, seq]);
    // The fixture's tables have both halves of a head, which are equal.
    let (cos, sin) = decoder.rope().tables(positions);
    let [cos, sin] = [cos, sin].map(|half| Tensor::cat(vec![half.clone(), half], 2));
    check.close(
        "rope.inv_freq",
        decoder.rope().inverse_frequencies(),
        &tensors.f32("rope.inv_freq")?,
        tolerance,
    );
    check.close(
        "rope.cos",
        &values(cos),
        &tensors.f32("rope.cos")?,
        tolerance,
    );
    check.close(
        "rope.sin",
        &values(sin),
        &tensors.f32("rope.sin")?,
        tolerance,
    );
    Ok(())
}
