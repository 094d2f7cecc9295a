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

/// Steps of linear growth among `total`: `ceil(ratio · total)`, as `TrainingArguments.get_warmup_steps` of `transformers` has it.
pub fn warmup_steps(ratio: f64, total: usize) -> usize {
    (ratio * total as f64).ceil() as usize
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

    /// `get_constant_schedule_with_warmup`, `get_linear_schedule_with_warmup` and `get_cosine_schedule_with_warmup` of
    /// transformers/optimization.py, line by line.
    fn transformers(schedule: Schedule, step: f64, warmup: f64, total: f64) -> f64 {
        if step < warmup {
            return step / f64::max(1.0, warmup);
        }
        let rest = f64::max(1.0, total - warmup);
        match schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => f64::max(0.0, (total - step) / rest),
            Schedule::Cosine => {
                let (progress, num_cycles) = ((step - warmup) / rest, 0.5);
                f64::max(0.0, 0.5 * (1.0 + (PI * num_cycles * 2.0 * progress).cos()))
            }
        }
    }

    #[test]
    fn every_step_has_the_rate_that_transformers_gives_it() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            for total in [1, 2, 7, 20] {
                for warmup in 0..=total {
                    for step in 0..=total {
                        let ours = schedule.factor(step, warmup, total);
                        let [step, warmup, total] = [step, warmup, total].map(|n| n as f64);
                        let theirs = transformers(schedule, step, warmup, total);
                        assert!((ours - theirs).abs() < 1e-12, "{schedule:?} {step}/{total}");
                    }
                }
            }
            assert_eq!(schedule.factor(0, 4, 20), 0.0, "the first step");
            assert_eq!(schedule.factor(4, 4, 20), 1.0, "the full rate");
        }
        let last = |schedule: Schedule| schedule.factor(19, 4, 20);
        assert_eq!(last(Schedule::Constant), 1.0);
        assert_eq!(last(Schedule::Linear), 1.0 / 16.0);
        assert!((last(Schedule::Cosine) - 0.009_607_359_798_384_785).abs() < 1e-15);
    }

    #[test]
    fn a_part_of_a_step_of_warm_up_is_a_whole_one() {
        // math.ceil(total * ratio) in Python.
        let expected = [
            (0.0, 30, 0),
            (0.1, 30, 3),
            (0.1, 31, 4),
            (0.03, 33, 1),
            (0.5, 5, 3),
            (0.1, 1, 1),
            (0.07, 100, 8), // 7.000000000000001 as floats have it, in Python as well
        ];
        for (ratio, total, steps) in expected {
            assert_eq!(warmup_steps(ratio, total), steps, "{ratio} of {total}");
        }
    }
}
