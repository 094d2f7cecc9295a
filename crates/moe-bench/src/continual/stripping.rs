//! The share of the traffic that needs no reviewer, before and after each task.

use moe_cl::metrics::Stripping;
use serde::{Deserialize, Serialize};

/// The precisions that a decision without a reviewer has to reach.
pub const TARGETS: [f64; 3] = [0.80, 0.90, 0.95];

/// Name of the file in a run's folder.
pub const FILE: &str = "stripping.json";

/// What a model says of a text: the probability of every label, and which is true.
pub type Scored = (Vec<f64>, usize);

/// What thresholds chosen on dev do on test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Strip {
    /// Precision that was asked for.
    pub target: f64,
    /// Share of the test texts that no reviewer needs to see: some label's score reaches its threshold.
    pub rate: f64,
    /// Share of those whose label is right; none where there are none.
    pub precision: Option<f64>,
}

/// The rates on one task as the stream goes on, one for each of [`TARGETS`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Before the task was learnt.
    pub before: [Strip; TARGETS.len()],
    /// Right after.
    pub after: [Strip; TARGETS.len()],
    /// After the last task.
    pub end: [Strip; TARGETS.len()],
}

/// For each target: every label's threshold is the one that takes most of `dev` at that precision; `test` is only measured.
/// A text that reaches several labels' thresholds counts for the most probable of them.
pub fn strip(dev: &[Scored], test: &[Scored]) -> [Strip; TARGETS.len()] {
    TARGETS.map(|target| {
        let labels = dev.first().map_or(0, |(scores, _)| scores.len());
        let thresholds: Vec<Option<f64>> = (0..labels)
            .map(|label| {
                let scores: Vec<f64> = dev.iter().map(|(scores, _)| scores[label]).collect();
                let truth: Vec<bool> = dev.iter().map(|(_, truth)| *truth == label).collect();
                Stripping::choose(&scores, &truth, target).threshold
            })
            .collect();
        let decided: Vec<bool> =
            test.iter()
                .filter_map(|(scores, truth)| {
                    let reached =
                        thresholds.iter().zip(scores).enumerate().filter(
                            |(_, (threshold, score))| threshold.is_some_and(|t| **score >= t),
                        );
                    let (label, _) = reached.max_by(|a, b| a.1.1.total_cmp(b.1.1))?;
                    Some(label == *truth)
                })
                .collect();
        let right = decided.iter().filter(|right| **right).count();
        Strip {
            target,
            rate: decided.len() as f64 / test.len().max(1) as f64,
            precision: (!decided.is_empty()).then(|| right as f64 / decided.len() as f64),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(score: f64, truth: usize) -> Scored {
        (vec![1.0 - score, score], truth)
    }

    #[test]
    fn thresholds_come_from_dev_alone() {
        let dev = [
            scored(0.9, 1),
            scored(0.6, 0),
            scored(0.1, 0),
            scored(0.2, 0),
        ];
        let test = [
            scored(0.95, 0),
            scored(0.7, 1),
            scored(0.05, 0),
            scored(0.3, 0),
        ];
        // On dev label 1 is precise from 0.9 on, label 0 from a score of 0.4 (0.6 for label 1) on.
        let [low, ..] = strip(&dev, &test);
        assert_eq!((low.rate, low.precision), (0.75, Some(2.0 / 3.0)));
        // The truth of the test changes the precision and nothing else.
        let lies: Vec<Scored> = test
            .iter()
            .map(|(s, truth)| (s.clone(), 1 - truth))
            .collect();
        assert_eq!(strip(&dev, &lies)[0].rate, low.rate);
    }

    #[test]
    fn nothing_is_stripped_where_no_threshold_reaches_the_target() {
        let dev = [scored(0.9, 0), scored(0.1, 1)];
        let strips = strip(&dev, &[scored(0.9, 1)]);
        assert!(
            strips
                .iter()
                .all(|strip| strip.rate == 0.0 && strip.precision.is_none())
        );
    }
}
