//! This program as one that writes on request.

use std::{fs, time::Instant};

use anyhow::Context;
use burn::module::Module;
use burn::tensor::Device;
use moe_core::{
    checkpoint::Checkpoint,
    generate::{Sampling, generate},
    model::Decoder,
};
use moe_lora::{Adapted, AdapterConfig, Catalogue, GateInit, LayerRange, Routing};

use super::{Options, Work};
use crate::peers::answer;

/// Writes on request.
///
/// # Errors
/// When the base cannot be read or the pipes break.
pub fn serve(options: &Options, work: Work) -> anyhow::Result<()> {
    let file = fs::canonicalize(&options.setup.base).with_context(|| options.setup.base.clone())?;
    let decoder = Decoder::load_as(&Checkpoint::open(&file)?, options.dtype, &Device::flex())?;
    let prompts = work.prompts();
    let (catalogue, routing) = experts(&decoder)?;
    let adapted = Adapted::new(&decoder, &catalogue, &routing);
    let step = || {
        let (start, greedy) = (Instant::now(), Sampling::greedy());
        let written = match work.experts {
            true => generate(&adapted, &prompts, work.new, &greedy, &[]),
            false => generate(&decoder, &prompts, work.new, &greedy, &[]),
        };
        let all = written.is_ok_and(|written| written.iter().all(|it| it.len() == work.new));
        assert!(all, "as many tokens as were asked for");
        start.elapsed().as_secs_f64()
    };
    step();
    answer(
        format!("moe-cl, base in {}", options.dtype),
        step,
        || 0.0,
        std::io::stdin().lock(),
        std::io::stdout(),
    )
}

/// Two experts that are as MoE-CL trains them, and their gate, in every layer.
fn experts(decoder: &Decoder) -> anyhow::Result<(Catalogue, Routing)> {
    let config = AdapterConfig {
        layers: LayerRange::All,
        ..AdapterConfig::default()
    };
    let device = Device::flex().autodiff();
    let mut catalogue = Catalogue::new(&config, decoder.config())?;
    let [own, shared] = [1, 2].map(|seed| catalogue.add_expert(&config.lora, "", seed, &device));
    let gate = catalogue.add_gate(2, GateInit::Zeros, "", &device);
    let experts = vec![own, shared];
    Ok((catalogue.valid(), Routing::Gated { experts, gate }))
}
