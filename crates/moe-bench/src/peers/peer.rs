//! The programs to measure against, and what was published for them.

use moe_core::model::BaseDtype;

use super::Served;
use crate::step::Mode;

/// Rate of the base's products when the published figures were taken, GFLOP/s, at the best seen per shape:
/// 326 GFLOP of a training step in 0.80 s (f32) and 0.43 s (bf16).
const PUBLISHED_RATES: [(BaseDtype, f64); 2] = [
    (BaseDtype::F32, 326.0 / 0.80),
    (BaseDtype::Bf16, 326.0 / 0.43),
];

/// A program in Python.
#[derive(Debug, PartialEq)]
pub struct Peer {
    /// Its name in the report.
    pub name: &'static str,
    /// Its file.
    pub program: &'static str,
    /// What it is timed at.
    pub mode: Mode,
    /// Type of its base.
    pub dtype: BaseDtype,
    /// Seconds of the same step as published for this class of machine.
    pub published: f64,
    /// How many times as fast ours has to be; none where that is only reported.
    pub bar: Option<f64>,
}

/// All of them.
pub const PEERS: [Peer; 6] = [
    tuned("torch_tuned_f32", Mode::Train, BaseDtype::F32, 2.26, 1.4),
    tuned(
        "torch_tuned_f32_eval",
        Mode::Eval,
        BaseDtype::F32,
        2.96,
        1.4,
    ),
    tuned("torch_tuned_bf16", Mode::Train, BaseDtype::Bf16, 1.91, 1.5),
    tuned(
        "torch_tuned_bf16_eval",
        Mode::Eval,
        BaseDtype::Bf16,
        1.84,
        1.4,
    ),
    peft("peft_f32", BaseDtype::F32, 2.2),
    peft("peft_bf16", BaseDtype::Bf16, 2.2),
];

const fn tuned(name: &'static str, mode: Mode, dtype: BaseDtype, published: f64, bar: f64) -> Peer {
    let (program, bar) = ("torch_tuned.py", Some(bar));
    Peer {
        name,
        program,
        mode,
        dtype,
        published,
        bar,
    }
}

/// One LoRA, in the tuned environment.
const fn peft(name: &'static str, dtype: BaseDtype, published: f64) -> Peer {
    let (program, mode, bar) = ("peft_lora.py", Mode::Train, None);
    Peer {
        name,
        program,
        mode,
        dtype,
        published,
        bar,
    }
}

impl Peer {
    /// What of ours is timed with it.
    pub fn served(&self) -> Served {
        Served {
            mode: self.mode,
            dtype: self.dtype,
        }
    }

    /// Rows of its batch.
    pub fn batch(&self) -> usize {
        self.served().batch()
    }

    /// The published seconds on a machine whose products run at `gflops`.
    pub fn published_at(&self, gflops: f64) -> f64 {
        let then = PUBLISHED_RATES
            .iter()
            .find(|(dtype, _)| *dtype == self.dtype);
        self.published * then.map_or(1.0, |(_, then)| then / gflops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_twice_as_fast_halves_the_published_seconds() {
        let peer = &PEERS[0];
        assert!((peer.published_at(326.0 / 0.80) - 2.26).abs() < 1e-9);
        assert!((peer.published_at(326.0 / 0.40) - 1.13).abs() < 1e-9);
    }
}
