//! How long a training step or a forward pass takes on SmolLM2-135M's shapes, and how near that comes to its own matrix products.

mod scale;
mod workload;

use std::time::Instant;

use clap::{Args, ValueEnum};
use moe_cl::training::peak_memory;
use moe_core::model::BaseDtype;

use crate::lower_bound::base_products;
use crate::shapes::device;
pub use scale::run as scale;
pub use workload::{Setting, Workload};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Forward, backward and AdamW
    Train,
    /// Forward alone
    Eval,
}

/// Arguments of `step` and `scale`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What is timed
    #[arg(long, value_enum, default_value_t = Mode::Train)]
    pub mode: Mode,
    /// Method in TOML, as in an experiment file
    #[arg(long, value_name = "TOML", default_value = r#"name = "moe_cl""#)]
    pub method: String,
    /// Rows
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch: usize,
    /// Tokens of a row, none of them padding
    #[arg(long, value_name = "N", default_value_t = 96)]
    pub len: usize,
    /// Layers of the model, all of them adapted
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub layers: usize,
    /// Rank of the LoRAs
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub rank: usize,
    /// Dropout on the LoRA inputs
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    pub dropout: f64,
    /// Number format of the base's matrices: f32 or bf16
    #[arg(long, value_name = "DTYPE", default_value_t)]
    pub base_dtype: BaseDtype,
    /// Tasks learnt so far, the one that is timed included
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub tasks: usize,
    /// Steps that are timed, after one that is not
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub rounds: usize,
}

impl Options {
    fn setting(&self) -> Setting {
        Setting {
            method: self.method.clone(),
            batch: self.batch,
            len: self.len,
            layers: self.layers,
            rank: self.rank,
            dropout: self.dropout,
            base_dtype: self.base_dtype,
            tasks: self.tasks,
        }
    }
}

/// Seconds of each round, sorted; one round before them is not counted.
///
/// # Errors
/// When the method is none.
pub fn seconds(setting: &Setting, mode: Mode, rounds: usize) -> anyhow::Result<Vec<f64>> {
    let mut workload = Workload::new(setting, &device())?;
    let mut once = || {
        let start = Instant::now();
        match mode {
            Mode::Train => workload.step(),
            Mode::Eval => workload.forward(),
        }
        start.elapsed().as_secs_f64()
    };
    once();
    let mut seconds: Vec<f64> = (0..rounds.max(1)).map(|_| once()).collect();
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

/// Times one setting, then its matrix products alone, and prints both.
///
/// # Errors
/// When the method is none.
pub fn run(options: &Options) -> anyhow::Result<String> {
    let setting = options.setting();
    let seconds = seconds(&setting, options.mode, options.rounds)?;
    // Before the products are timed, so that it is that of the steps.
    let memory = peak_memory();
    let median = seconds[seconds.len() / 2];
    let (least, greatest) = (seconds[0], seconds[seconds.len() - 1]);
    let tokens = (options.batch * options.len) as f64;

    let device = device();
    let mut lines = vec![format!(
        "{:<22} {:>26} {:>6} {:>9} {:>9}",
        "product", "shape", "count", "GFLOP/s", "ms"
    )];
    let (mut bound, mut flops) = (0.0, 0.0);
    let products = base_products(&setting.model(), options.batch, options.len);
    let products = products
        .into_iter()
        .filter(|product| options.mode == Mode::Train || !product.name.ends_with("backward"));
    for product in products {
        let once = product.seconds(options.base_dtype, &device);
        let all = once * product.count as f64;
        lines.push(format!(
            "{:<22} {:>26} {:>6} {:>9.0} {:>9.1}",
            product.name,
            product.shape(),
            product.count,
            product.flops() / once / 1e9,
            1e3 * all
        ));
        bound += all;
        flops += product.flops() * product.count as f64;
    }
    lines.push(format!(
        "products alone: {bound:.3} s, {:.0} GFLOP/s on average",
        flops / bound / 1e9
    ));
    lines.push(format!(
        "{}: {median:.3} s (median of {}, {least:.3} to {greatest:.3}), {:.0} real tokens/s, {:.0} % of the speed of its products{}",
        match options.mode {
            Mode::Train => "training step",
            Mode::Eval => "forward pass",
        },
        seconds.len(),
        tokens / median,
        100.0 * bound / median,
        memory.map_or(String::new(), |bytes| format!(
            ", peak memory {:.2} GB",
            bytes as f64 / 1e9
        )),
    ));
    Ok(lines.join("\n"))
}
