//! How long a training step or a forward pass takes on SmolLM2-135M's shapes, and how near that comes to its own matrix products.

mod processor;
mod profile;
mod scale;
mod workload;

use burn::tensor::Device;
use clap::{Args, ValueEnum};
use moe_cl::training::peak_memory;
use moe_core::model::BaseDtype;

use crate::lower_bound::{Speed, base_products};
use crate::shapes::device;
pub use processor::processor_seconds;
pub use profile::{Kind, profile};
pub use scale::run as scale;
pub use workload::{Setting, Workload};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Forward, backward and AdamW
    Train,
    /// Forward alone
    Eval,
    /// Forward alone, the rows of the batch spread over all tasks
    Mixed,
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
    /// Also time each kind of operation by itself
    #[arg(long)]
    pub profile: bool,
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

/// How long the rounds took.
pub struct Times {
    /// Wall seconds of each, sorted.
    pub wall: Vec<f64>,
    /// Processor seconds of one on average, where the system tells.
    pub processor: Option<f64>,
}

impl Times {
    /// Wall seconds of the round in the middle.
    pub fn median(&self) -> f64 {
        self.wall[self.wall.len() / 2]
    }
}

/// Times `rounds` rounds, at least one; one before them is not counted.
///
/// # Errors
/// When the method is none.
pub fn times(setting: &Setting, mode: Mode, rounds: usize) -> anyhow::Result<Times> {
    let mut workload = Workload::new(setting, &device())?;
    let mut once = || workload.seconds(mode);
    once();
    let rounds = rounds.max(1);
    let before = processor_seconds();
    let mut wall: Vec<f64> = (0..rounds).map(|_| once()).collect();
    let processor = processor_seconds()
        .zip(before)
        .map(|(after, before)| (after - before) / rounds as f64);
    wall.sort_by(f64::total_cmp);
    Ok(Times { wall, processor })
}

/// The kinds of operation in a table, and what the `whole` takes beyond them.
fn profile_lines(setting: &Setting, mode: Mode, whole: f64, device: &Device) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<22} {:>6} {:>12} {:>12} {:>8}",
        "operation", "count", "forward ms", "backward ms", "share"
    )];
    let mut rest = whole;
    for kind in profile(setting, device) {
        let all = |once: f64| once * kind.count as f64;
        let backward = match mode {
            Mode::Train => all(kind.backward),
            Mode::Eval | Mode::Mixed => 0.0,
        };
        let both = all(kind.forward) + backward;
        rest -= both;
        lines.push(format!(
            "{:<22} {:>6} {:>12.1} {:>12.1} {:>6.0} %",
            kind.name,
            kind.count,
            1e3 * all(kind.forward),
            1e3 * backward,
            100.0 * both / whole
        ));
    }
    lines.push(format!(
        "{:<22} {:>6} {:>25.1} {:>6.0} %",
        "everything else",
        "",
        1e3 * rest,
        100.0 * rest / whole
    ));
    lines
}

/// Times one setting, then its matrix products alone, and prints both.
///
/// # Errors
/// When the method is none.
pub fn run(options: &Options) -> anyhow::Result<String> {
    let setting = options.setting();
    let times = times(&setting, options.mode, options.rounds)?;
    // Before the products are timed, so that it is that of the steps.
    let memory = peak_memory();
    let median = times.median();
    let (least, greatest) = (times.wall[0], times.wall[times.wall.len() - 1]);
    let tokens = (options.batch * options.len) as f64;

    let device = device();
    let mut lines = vec![format!(
        "{:<22} {:>26} {:>6} {:>9} {:>9}",
        "product", "shape", "count", "GFLOP/s", "ms"
    )];
    let (mut bound, mut flops, mut bound_processor) = (0.0, 0.0, 0.0);
    let products = base_products(&setting.model(), options.batch, options.len);
    let products = products
        .into_iter()
        .filter(|product| options.mode == Mode::Train || !product.name.ends_with("backward"));
    for product in products {
        let Speed {
            wall: once,
            processor,
        } = product.speed(options.base_dtype, &device);
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
        bound_processor += processor.unwrap_or(0.0) * product.count as f64;
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
            Mode::Mixed => "forward pass of all tasks",
        },
        times.wall.len(),
        tokens / median,
        100.0 * bound / median,
        memory.map_or(String::new(), |bytes| format!(
            ", peak memory {:.2} GB",
            bytes as f64 / 1e9
        )),
    ));
    if let Some(processor) = times.processor {
        lines.push(format!(
            "processor time: {processor:.3} s, of its products {bound_processor:.3} s ({:.0} %)",
            100.0 * bound_processor / processor
        ));
    }
    if options.profile {
        lines.extend(profile_lines(&setting, options.mode, median, &device));
    }
    Ok(lines.join("\n"))
}
