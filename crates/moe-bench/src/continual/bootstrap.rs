//! How sure a difference between two methods is, given that both answered the same texts.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Resamplings of the texts.
const RESAMPLES: usize = 2000;

/// A difference of mean accuracy with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// First method less second.
    pub mean: f64,
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

impl Difference {
    /// Whether the interval leaves out zero.
    pub fn is_clear(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// The paired bootstrap (Efron 1979) of a difference in AvgAcc: `pairs[task][text]` holds what two methods got for the same text,
/// each in [0, 1] (a mean over runs, or 0 and 1). The texts of every task are drawn anew with replacement; the figure is the mean
/// over tasks of the mean difference. None where no task has a text.
pub fn paired(pairs: &[Vec<(f64, f64)>], seed: u64) -> Option<Difference> {
    let differences: Vec<Vec<f64>> = pairs
        .iter()
        .filter(|task| !task.is_empty())
        .map(|task| task.iter().map(|(a, b)| a - b).collect())
        .collect();
    if differences.is_empty() {
        return None;
    }
    let over_tasks = |mean: &mut dyn FnMut(&[f64]) -> f64| {
        differences.iter().map(|task| mean(task)).sum::<f64>() / differences.len() as f64
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            over_tasks(&mut |task| {
                let drawn = (0..task.len()).map(|_| task[rng.random_range(0..task.len())]);
                drawn.sum::<f64>() / task.len() as f64
            })
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let percentile = |share: f64| resampled[(share * (RESAMPLES - 1) as f64).round() as usize];
    Some(Difference {
        mean: over_tasks(&mut |task| task.iter().sum::<f64>() / task.len() as f64),
        low: percentile(0.025),
        high: percentile(0.975),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_methods_differ_by_nothing() {
        let right = |index: usize| f64::from(u8::from(!index.is_multiple_of(3)));
        let pairs = vec![(0..50).map(|index| (right(index), right(index))).collect()];
        let difference = paired(&pairs, 1).unwrap();
        assert!(difference.low <= 0.0 && 0.0 <= difference.high);
        assert!(!difference.is_clear());
    }

    #[test]
    fn methods_equal_on_average_have_an_interval_around_zero() {
        let pairs = vec![
            (0..100)
                .map(|index| {
                    let first = f64::from(u8::from(index % 2 == 0));
                    (first, 1.0 - first)
                })
                .collect(),
        ];
        let difference = paired(&pairs, 1).unwrap();
        assert!(difference.mean == 0.0 && difference.low < -0.1 && difference.high > 0.1);
    }

    #[test]
    fn a_method_that_is_always_better_is_clearly_better() {
        let difference = paired(&[vec![(1.0, 0.0); 20], vec![]], 1).unwrap();
        assert_eq!((difference.mean, difference.low), (1.0, 1.0));
        assert!(difference.is_clear());
        assert_eq!(paired(&[vec![]], 1), None);
    }
}
