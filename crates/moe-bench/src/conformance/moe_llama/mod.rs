//! Tiny checkpoints of sparse mixtures: logits, hidden states, what the routers chose, balance loss, gradients, padding, greedy
//! generation.

mod gradients;

use burn::tensor::{Bool, Int, Tensor};
use moe_core::checkpoint::Checkpoint;
use moe_core::model::{Decoder, Routed};
use moe_lora::router::{Tokens, balance_loss};

use super::case::Case;
use super::check::{Check, Verdict};
use super::device::{all_real, cpu, flat, mask, tokens, values};
use super::llama::{generation, next_token_loss};
use super::tensors::Tensors;

/// Runs a case.
///
/// # Errors
/// When the fixture, or its checkpoint, cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    let checkpoint = Checkpoint::open(&case.dir.join("model"))?;
    let decoder = Decoder::load(&checkpoint, &cpu()?)?;
    let mut check = Check::default();
    full(&mut check, case, &tensors, &decoder)?;
    padded(&mut check, case, &tensors, &decoder)?;
    let tolerance = case.tolerance("logits_hidden_router")?;
    generation::compare(&mut check, &tensors, &decoder, "gen", tolerance)?;
    gradients::compare(&mut check, case, &tensors, decoder)?;
    check.note_unused(&tensors);
    Ok(check.verdict())
}

/// One pass through the decoder.
struct Pass {
    /// The input of each layer, then the final hidden states, `[batch, seq, d_model]` each.
    states: Vec<Tensor<3>>,
    /// `[batch · seq, vocab_size]`.
    logits: Tensor<2>,
    /// Of the sparse layers, with the layer's index.
    routed: Vec<(usize, Routed)>,
}

impl Pass {
    fn new(decoder: &Decoder, ids: Tensor<2, Int>, real: Tensor<2, Bool>) -> Self {
        let (mut states, mut routed) = (Vec::new(), Vec::new());
        let layers = 0..decoder.layers.len();
        let block = |index: usize, x: &mut _, context: &_, cache: Option<&mut _>| {
            states.push(moe_core::model::Residual::clone(x).into_sum());
            let chosen = decoder.layers[index].forward_routed(x, context, cache);
            routed.extend(chosen.map(|chosen| (index, chosen)));
        };
        let mut x = decoder.walk(decoder.embed(ids), real, layers, None, block);
        let hidden = x.normed(&decoder.norm);
        states.push(hidden.clone());
        Self {
            states,
            logits: decoder.logits(flat(hidden)),
            routed,
        }
    }

    /// The balance loss of all sparse layers together, `[1]`; `real` is 1 where a token is no padding. The reference counts each
    /// choice as a whole one, where ours are shares that sum to one.
    fn balance(&self, real: &[i64]) -> Tensor<1> {
        let probs = self.routed.iter().map(|(_, routed)| routed.probs.clone());
        let probs = Tensor::cat(probs.collect(), 0);
        let [count, experts] = probs.dims();
        let (mut chosen, mut top_k) = (vec![0; experts], 0);
        for (_, routed) in &self.routed {
            [_, top_k] = routed.weights.dims();
            let choices = routed.experts.iter().enumerate();
            for (_, &expert) in choices.filter(|(place, _)| real[place / top_k] == 1) {
                chosen[expert as usize] += 1;
            }
        }
        let real = real.iter().cycle().take(count).map(|&real| real == 1);
        let tokens = Tokens::new(count).with_real(real.collect());
        balance_loss(probs, &chosen, &tokens) * top_k as f64
    }
}

/// Without padding: hidden states, routers, logits, losses.
fn full(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    decoder: &Decoder,
) -> anyhow::Result<()> {
    let (tolerance, of_losses) = (
        case.tolerance("logits_hidden_router")?,
        case.tolerance("losses")?,
    );
    let device = decoder.device();
    let ids = tokens(tensors, "full.input_ids", &device)?;
    let [batch, seq] = ids.dims();
    let pass = Pass::new(decoder, ids, all_real([batch, seq], &device));
    for (index, state) in pass.states.iter().enumerate() {
        let name = format!("full.hidden.{index}");
        let got = values(state.clone());
        check.close(&name, &got, &tensors.f32(&name)?, tolerance);
    }
    for (layer, routed) in &pass.routed {
        let name = format!("full.router_logits.{layer}");
        let got = values(routed.logits.clone());
        check.close(&name, &got, &tensors.f32(&name)?, tolerance);
        let name = format!("full.experts.{layer}");
        let got: Vec<i64> = routed.experts.iter().map(|&expert| expert.into()).collect();
        check.exact(&name, &got, &tensors.i64(&name)?);
    }
    let logits = values(pass.logits.clone());
    let want = tensors.f32("full.logits")?;
    check.close("full.logits", &logits, &want, tolerance);
    let loss = next_token_loss(&logits, &tensors.i64("full.labels")?, seq);
    let want = tensors.f64("full.loss_lm")?[0];
    check.scalar("full.loss_lm", loss, want, of_losses);
    let balance = values(pass.balance(&vec![1; batch * seq]))[0].into();
    let want = tensors.f64("full.aux_loss")?[0];
    check.scalar("full.aux_loss", balance, want, of_losses);
    let together = loss + case.setting("router_aux_loss_coef")? * balance;
    let want = tensors.f64("full.loss_with_aux")?[0];
    check.scalar("full.loss_with_aux", together, want, of_losses);
    Ok(())
}

/// With padding on the right: logits of real positions, and losses that leave the padding out.
fn padded(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    decoder: &Decoder,
) -> anyhow::Result<()> {
    let (tolerance, of_losses) = (
        case.tolerance("logits_hidden_router")?,
        case.tolerance("losses")?,
    );
    let device = decoder.device();
    let ids = tokens(tensors, "right.input_ids", &device)?;
    let [_, seq] = ids.dims();
    let real = tensors.i64("right.attention_mask")?;
    let pass = Pass::new(
        decoder,
        ids,
        mask(tensors, "right.attention_mask", &device)?,
    );
    let [_, vocab] = pass.logits.dims();
    let logits = values(pass.logits.clone());
    let want = tensors.f32("right.logits")?;
    let wanted = |index: usize| real[index / vocab] == 1;
    check.close_where("right.logits", &logits, &want, tolerance, wanted);
    let ids = tensors.i64("right.input_ids")?.into_iter().zip(&real);
    let labels: Vec<i64> = ids
        .map(|(id, &real)| if real == 1 { id } else { -100 })
        .collect();
    let loss = next_token_loss(&logits, &labels, seq);
    let want = tensors.f64("right.loss_lm")?[0];
    check.scalar("right.loss_lm", loss, want, of_losses);
    let balance = values(pass.balance(&real))[0].into();
    let want = tensors.f64("right.aux_loss")?[0];
    check.scalar("right.aux_loss", balance, want, of_losses);
    Ok(())
}
