//! The stripping rate of the MoE-CL authors: the share of the traffic for a label that needs no reviewer.

use std::cmp::Ordering;

/// The best threshold for a label and what it buys on the samples that it was chosen on.
///
/// Choose it on dev and apply it to test; the authors tune and report on the same set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stripping {
    /// Smallest observed score at and above which the precision reaches the target; none where no score does.
    pub threshold: Option<f64>,
    /// Share of all samples at or above the threshold; 0 without a threshold.
    pub rate: f64,
}

impl Stripping {
    /// The threshold among the observed scores that maximises the share of samples with `score ≥ threshold`, subject to a
    /// precision of at least `target` on them. `has_label[i]` says whether sample `i` truly has the label.
    ///
    /// A score that is not a number is never stripped, and counts in the total.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn choose(scores: &[f64], has_label: &[bool], target: f64) -> Self {
        assert_eq!(scores.len(), has_label.len(), "a truth for every score");
        let mut samples: Vec<(f64, bool)> = scores
            .iter()
            .copied()
            .zip(has_label.iter().copied())
            .filter(|(score, _)| !score.is_nan())
            .collect();
        samples.sort_by(|(a, _), (b, _)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
        let mut best = Self {
            threshold: None,
            rate: 0.0,
        };
        let mut right = 0usize;
        for (index, &(score, truth)) in samples.iter().enumerate() {
            right += usize::from(truth);
            let taken = index + 1;
            let last_of_its_score = samples.get(taken).is_none_or(|(next, _)| *next != score);
            if last_of_its_score && right as f64 / taken as f64 >= target {
                best = Self {
                    threshold: Some(score),
                    rate: taken as f64 / scores.len() as f64,
                };
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f64; 5] = [0.9, 0.8, 0.8, 0.3, f64::NAN];
    const TRUTH: [bool; 5] = [true, true, false, true, true];

    #[test]
    fn equal_scores_are_stripped_together() {
        assert_eq!(
            Stripping::choose(&SCORES, &TRUTH, 0.9),
            Stripping {
                threshold: Some(0.9),
                rate: 0.2
            }
        );
    }

    #[test]
    fn the_largest_share_wins_even_past_a_dip_in_precision() {
        assert_eq!(
            Stripping::choose(&SCORES, &TRUTH, 0.75),
            Stripping {
                threshold: Some(0.3),
                rate: 0.8
            }
        );
    }

    #[test]
    fn an_unreachable_target_strips_nothing() {
        let none = Stripping::choose(&SCORES, &[false; 5], 0.1);
        assert_eq!(
            none,
            Stripping {
                threshold: None,
                rate: 0.0
            }
        );
    }
}
