//! Learning-rate schedules, as `transformers` defines them: linear warm-up, then constant, linear decay or half a cosine.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The full rate to the end.
    #[default]
    Constant,
    /// Down to zero in a straight line.
    Linear,
    /// Down to zero along half a cosine.
    Cosine,
}

impl Schedule {
    /// Factor on the base rate at `step` (0-based) of `total`, after `warmup` steps of linear growth from 0.
    pub fn factor(self, step: usize, warmup: usize, total: usize) -> f64 {
        if step < warmup {
            return step as f64 / warmup.max(1) as f64;
        }
        let decay_steps = total.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => total.saturating_sub(step) as f64 / decay_steps,
            Self::Cosine => {
                let progress = (step - warmup) as f64 / decay_steps;
                (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_grows_in_a_line_to_the_full_rate() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            assert_eq!(schedule.factor(0, 4, 20), 0.0);
            assert_eq!(schedule.factor(1, 4, 20), 0.25);
            assert_eq!(schedule.factor(4, 4, 20), 1.0);
        }
    }

    #[test]
    fn decays_end_at_zero_and_pass_the_middle_at_one_half() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            assert!((schedule.factor(12, 4, 20) - 0.5).abs() < 1e-12);
            assert!(schedule.factor(20, 4, 20).abs() < 1e-12);
        }
        assert_eq!(Schedule::Linear.factor(22, 4, 20), 0.0);
    }
}
