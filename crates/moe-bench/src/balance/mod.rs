//! What the losses of noisy top-k gating do for balance, and what they cost: table 6 of Shazeer et al. 2017 (arXiv 1701.06538) in small,
//! on a stream of tokens most of which are of few kinds.

mod model;
mod stream;

use std::io::Write;

use burn::optim::{AdamWConfig, GradientsParams};
use clap::Args;
use moe_lora::router::{Balance, NoisyTopKConfig, Phase, Variance};

use self::model::Model;
use self::stream::Stream;
use crate::shapes::device;

/// Coefficients of the importance and the load loss: the rows of the paper's table 6, and weaker single ones.
const ROWS: [(f64, f64); 8] = [
    (0.0, 0.0),
    (0.2, 0.0),
    (0.02, 0.0),
    (0.0, 0.2),
    (0.0, 0.02),
    (0.1, 0.1),
    (0.01, 0.01),
    (1.0, 1.0),
];

/// Batches that a trained model is measured on.
const MEASURED: usize = 16;

/// What is trained.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Experts of the mixture
    #[arg(long, value_name = "N", default_value_t = 32)]
    experts: usize,
    /// Experts of a token
    #[arg(long, value_name = "K", default_value_t = 2)]
    top_k: usize,
    /// Optimiser steps
    #[arg(long, value_name = "N", default_value_t = 3000)]
    steps: usize,
    /// Tokens of a step
    #[arg(long, value_name = "N", default_value_t = 256)]
    tokens: usize,
    /// Learning rate of AdamW
    #[arg(long, value_name = "RATE", default_value_t = 3e-3)]
    learning_rate: f64,
    /// Runs of each row, with the seeds from 0
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
}

/// Of a trained model, on texts that it has not seen.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    importance: f64,
    load: f64,
    max_over_mean: f64,
    dead: f64,
    /// Nats per token, without noise.
    loss: f64,
}

impl Measured {
    fn mean(runs: &[Self]) -> Self {
        let of = |number: &dyn Fn(&Self) -> f64| {
            runs.iter().map(number).sum::<f64>() / runs.len() as f64
        };
        Self {
            importance: of(&|it| it.importance),
            load: of(&|it| it.load),
            max_over_mean: of(&|it| it.max_over_mean),
            dead: of(&|it| it.dead),
            loss: of(&|it| it.loss),
        }
    }

    /// CV² below 0.1 at a task loss at most 1 % above that of `free`.
    fn keeps_the_promise(&self, free: &Self) -> bool {
        self.importance < 0.1 && self.load < 0.1 && self.loss <= 1.01 * free.loss
    }
}

/// Trains every row and prints a line for each.
///
/// # Errors
/// When nothing can be written.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let Options {
        experts,
        top_k,
        steps,
        tokens,
        learning_rate,
        seeds,
    } = options;
    writeln!(
        out,
        "{experts} experts, top {top_k}, {steps} steps of {tokens} tokens, learning rate {learning_rate}, means over {seeds} seeds"
    )?;
    writeln!(
        out,
        "w_importance  w_load  CV² importance  CV² load  max/mean load  dead experts  task loss  against none"
    )?;
    let mut free = None;
    let mut keepers = Vec::new();
    for (importance, load) in ROWS {
        let runs: Vec<Measured> = (0..*seeds)
            .map(|seed| trained(options, (importance, load), seed))
            .collect();
        let mean = Measured::mean(&runs);
        let free = *free.get_or_insert(mean);
        writeln!(
            out,
            "{importance:12}  {load:6}  {:14.3}  {:8.3}  {:13.2}  {:12.1}  {:9.4}  {:+10.2} %",
            mean.importance,
            mean.load,
            mean.max_over_mean,
            mean.dead,
            mean.loss,
            100.0 * (mean.loss / free.loss - 1.0)
        )?;
        if mean.keeps_the_promise(&free) {
            keepers.push(format!("{importance}/{load}"));
        }
    }
    let free = free.unwrap_or_default();
    let skewed = free.importance > 1.0 && free.load > 1.0;
    let kept = match (skewed, keepers.is_empty()) {
        (true, false) => format!("kept by {}", keepers.join(", ")),
        (true, true) => "not kept".into(),
        (false, _) => "not tested: the router without losses is not that uneven".into(),
    };
    writeln!(
        out,
        "CV² from above 1 to below 0.1 at a task loss at most 1 % higher: {kept}"
    )?;
    Ok(())
}

fn trained(options: &Options, (importance, load): (f64, f64), seed: u64) -> Measured {
    let device = device();
    let config = NoisyTopKConfig {
        top_k: options.top_k,
        importance,
        load,
        variance: Variance::Biased,
    };
    let stream = Stream::new(seed);
    let mut model = Model::new(config, options.experts, seed, &device.clone().autodiff());
    let mut optimizer = AdamWConfig::new().init();
    for step in 0..options.steps as u64 {
        let batch = stream.batch(options.tokens, step, &device);
        let (loss, dispatch) = model.loss(
            &batch,
            Phase::Train {
                seed: seed << 32 | step,
            },
        );
        let total = match dispatch.auxiliary() {
            Some(auxiliary) => loss + auxiliary,
            None => loss,
        };
        let gradients = GradientsParams::from_grads(total.backward(), &model);
        model = optimizer.step(options.learning_rate, model, gradients);
    }
    let mut balance = Balance::new(options.experts);
    let mut loss = 0.0;
    for batch in 0..MEASURED as u64 {
        let place = u64::MAX - batch;
        let batch = stream.batch(options.tokens, place, &device);
        let phase = Phase::Train { seed: place };
        let (_, dispatch) = model.loss(&batch, phase);
        balance.add(&dispatch, &batch.tokens());
        let (of_batch, _) = model.loss(&batch, Phase::Evaluate);
        loss += f64::from(of_batch.into_scalar::<f32>()) / MEASURED as f64;
    }
    let figures = balance.figures();
    Measured {
        importance: figures.importance_cv_squared,
        load: figures.load_cv_squared,
        max_over_mean: figures.max_over_mean,
        dead: figures.dead as f64,
        loss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_losses_even_out_a_short_training_too() {
        let options = Options {
            experts: 8,
            top_k: 2,
            steps: 60,
            tokens: 128,
            learning_rate: 1e-2,
            seeds: 1,
        };
        let free = trained(&options, (0.0, 0.0), 0);
        let even = trained(&options, (1.0, 1.0), 0);
        assert!(even.load < free.load / 2.0, "{even:?} {free:?}");
        assert_eq!(trained(&options, (1.0, 1.0), 0).loss, even.loss);
    }
}
