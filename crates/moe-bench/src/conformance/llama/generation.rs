//! Greedy generation through the key-value cache.

use burn::tensor::{Device, Int, Tensor};
use moe_core::generate::{CausalLm, Sampling, generate};
use moe_core::model::{Decoder, KvCache};

use super::super::check::{Check, Tolerance};
use super::super::device::{all_real, values};
use super::super::tensors::Tensors;

/// Greedy ids after left-padded prompts, and where given the logits of each step.
pub fn compare(
    check: &mut Check,
    tensors: &Tensors,
    decoder: &Decoder,
    group: &str,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let name = format!("{group}.prompt");
    let [batch, seq] = tensors.dims::<2>(&name)?;
    let ids = tensors.i64(&name)?;
    let mask_name = format!("{group}.attention_mask");
    let real = if tensors.has(&mask_name) {
        tensors.i64(&mask_name)?
    } else {
        vec![1; ids.len()]
    };
    let prompts: Vec<Vec<u32>> = (0..batch)
        .map(|row| {
            (row * seq..(row + 1) * seq)
                .filter(|&index| real[index] == 1)
                .map(|index| ids[index] as u32)
                .collect()
        })
        .collect();
    let [_, steps] = tensors.dims::<2>(&format!("{group}.ids"))?;
    let want: Vec<u32> = tensors
        .i64(&format!("{group}.ids"))?
        .into_iter()
        .map(|id| id as u32)
        .collect();
    let got = generate(decoder, &prompts, steps, &Sampling::greedy(), &[])?;
    check.exact(&format!("{group}.ids"), &got.concat(), &want);
    let name = format!("{group}.step_logits");
    if tensors.has(&name) {
        let mut got = Vec::new();
        for (row, prompt) in prompts.iter().enumerate() {
            got.extend(step_logits(
                decoder,
                prompt,
                &want[row * steps..(row + 1) * steps],
                &decoder.device(),
            ));
        }
        check.close(&name, &got, &tensors.f32(&name)?, tolerance);
    }
    Ok(())
}

/// Logits that each of `continuation` was chosen from, fed through the cache one at a time.
fn step_logits(
    decoder: &Decoder,
    prompt: &[u32],
    continuation: &[u32],
    device: &Device,
) -> Vec<f32> {
    let mut cache = KvCache::new(decoder.num_layers());
    let mut feed = prompt.to_vec();
    let mut collected = Vec::new();
    for &next in continuation {
        let ids: Vec<i64> = feed.iter().map(|&id| id.into()).collect();
        let ids = Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape([1, feed.len()]);
        let hidden = decoder.forward_cached(ids, all_real([1, feed.len()], device), &mut cache);
        let [_, seq, d_model] = hidden.dims();
        let last = hidden.slice([0..1, seq - 1..seq]).reshape([1, d_model]);
        collected.extend(values(decoder.logits(last)));
        feed = vec![next];
    }
    collected
}
