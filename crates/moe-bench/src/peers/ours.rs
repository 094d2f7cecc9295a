//! Our side: the step of `bench step`, kept warm, one at a time.

use std::io::{stdin, stdout};

use moe_core::model::BaseDtype;
use moe_kernels::Level;

use super::program;
use crate::lower_bound::base_products;
use crate::shapes::device;
use crate::step::{Mode, Setting, Workload};

/// Tokens of a row.
const LEN: usize = 96;
const WARM_UP: usize = 2;

/// What a process of ours is timed at.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// A training step or a forward pass.
    pub mode: Mode,
    /// Type of the base.
    pub dtype: BaseDtype,
}

impl Served {
    /// The mode, as arguments have it.
    pub fn mode_name(self) -> &'static str {
        match self.mode {
            Mode::Train => "train",
            Mode::Eval => "eval",
            Mode::Mixed => "mixed",
        }
    }

    /// Rows of the batch.
    pub fn batch(self) -> usize {
        match self.mode {
            Mode::Train => 8,
            Mode::Eval | Mode::Mixed => 32,
        }
    }
}

/// The step that PyTorch's programs do: the method in the paper's form at its second task.
pub fn setting(batch: usize) -> Setting {
    Setting {
        method: r#"name = "moe_cl", mode = "paper""#.into(),
        batch,
        len: LEN,
        layers: 30,
        rank: 8,
        dropout: 0.05,
        base_dtype: BaseDtype::F32,
        tasks: 2,
    }
}

/// Warms up and answers requests until there are no more.
///
/// # Errors
/// When the device has no base of that type, or the other end is gone.
pub fn serve(served: Served) -> anyhow::Result<()> {
    let Served { mode, dtype } = served;
    let setting = Setting {
        base_dtype: dtype,
        ..setting(served.batch())
    };
    let mut workload = Workload::new(&setting, &device())?;
    let mut step = || workload.seconds(mode);
    for _ in 0..WARM_UP {
        step();
    }
    let level = Level::asked_for().map_err(anyhow::Error::msg)?;
    let ready = format!("moe-cl {}, kernels {level}", env!("CARGO_PKG_VERSION"));
    let rate = || rate(&setting, mode);
    program::answer(ready, step, rate, stdin().lock(), stdout().lock())
}

/// GFLOP/s of the step's products, each at its best.
fn rate(setting: &Setting, mode: Mode) -> f64 {
    let products = base_products(&setting.model(), setting.batch, setting.len).into_iter();
    let (mut flops, mut seconds) = (0.0, 0.0);
    for product in
        products.filter(|product| mode == Mode::Train || !product.name.ends_with("backward"))
    {
        let count = product.count as f64;
        flops += count * product.flops();
        seconds += count * product.speed(setting.base_dtype, &device()).wall;
    }
    1e-9 * flops / seconds
}
