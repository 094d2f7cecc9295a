//! The figures that the field reads off an accuracy matrix, and of how many tasks each speaks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AccuracyMatrix, mean};

/// The figures of an [`AccuracyMatrix`], each the mean over the learnt tasks for which it is defined; none where that is no task.
///
/// They speak of the tasks learnt so far, so that they also make sense in the middle of a run. [`Self::over`] says which of them
/// leave out a task because a score of it was not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean score over the learnt tasks after the last of them.
    pub avg_acc: Option<f64>,
    /// Backward transfer (Lopez-Paz & Ranzato 2017), `1/(T−1) Σ_{i<T−1} (R[T−1][i] − R[i][i])`: below 0 means forgetting.
    pub bwt: Option<f64>,
    /// Forward transfer (Lopez-Paz & Ranzato 2017), `1/(T−1) Σ_{i≥1} (R[i−1][i] − b[i])`, against the untrained model.
    pub fwt: Option<f64>,
    /// Forgetting (Chaudhry 2018): fall from the best score that any earlier row shows
    /// ([`AccuracyMatrix::forgetting_per_task`]).
    pub forgetting: Option<f64>,
    /// Fall from the best score since the task was learnt ([`AccuracyMatrix::forgetting_since_learnt_per_task`]).
    pub forgetting_since_learnt: Option<f64>,
    /// Mean score on each task right after learning it, `1/T Σ_i R[i][i]`.
    pub learning_accuracy: Option<f64>,
    /// Mean, over the stages, of the average score at that stage, `1/T Σ_i 1/(i+1) Σ_{j≤i} R[i][j]`.
    pub average_incremental_accuracy: Option<f64>,
    /// Over what each figure is a mean.
    #[serde(default)]
    pub over: Coverage,
}

/// Over what each figure of a [`Summary`] is a mean: tasks, and scores of learnt tasks for the average incremental accuracy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Coverage {
    pub avg_acc: Over,
    pub bwt: Over,
    pub fwt: Over,
    pub forgetting: Over,
    pub forgetting_since_learnt: Over,
    pub learning_accuracy: Over,
    pub average_incremental_accuracy: Over,
}

/// How much of what a figure is a mean over was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// Terms of the mean.
    pub measured: usize,
    /// Terms that it would have if every score had been measured.
    pub possible: usize,
}

impl Over {
    fn of(terms: &[Option<f64>]) -> Self {
        Self {
            measured: terms.iter().flatten().count(),
            possible: terms.len(),
        }
    }

    /// Whether the figure is a mean, but leaves something out.
    pub fn is_partial(&self) -> bool {
        self.measured > 0 && self.measured < self.possible
    }
}

/// `over 2 of 3`
impl fmt::Display for Over {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "over {} of {}", self.measured, self.possible)
    }
}

impl AccuracyMatrix {
    /// All figures that need nothing but the matrix.
    pub fn summary(&self) -> Summary {
        let learnt = self.learnt();
        let last = learnt.saturating_sub(1);
        let at_the_end: Vec<Option<f64>> = (0..learnt).map(|j| self.get(last, j)).collect();
        let since_learnt = self.forgetting_since_learnt_per_task();
        let (bwt, fwt) = (self.bwt_per_task(), self.fwt_per_task());
        let (forgetting, when_learnt) = (self.forgetting_per_task(), self.when_learnt());
        let stages = self.avg_acc_after_each_task();
        let scores: Vec<Option<f64>> = (0..learnt)
            .flat_map(|i| (0..=i).map(move |j| self.get(i, j)))
            .collect();
        let figure = |terms: &[Option<f64>]| mean(terms.iter().copied().flatten());
        Summary {
            avg_acc: figure(&at_the_end),
            bwt: figure(&bwt),
            fwt: figure(&fwt),
            forgetting: figure(&forgetting),
            forgetting_since_learnt: figure(&since_learnt),
            learning_accuracy: figure(&when_learnt),
            average_incremental_accuracy: figure(&stages),
            over: Coverage {
                avg_acc: Over::of(&at_the_end),
                bwt: Over::of(&bwt),
                fwt: Over::of(&fwt),
                forgetting: Over::of(&forgetting),
                forgetting_since_learnt: Over::of(&since_learnt),
                learning_accuracy: Over::of(&when_learnt),
                average_incremental_accuracy: Over::of(&scores),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[&[f64]], baseline: &[f64]) -> AccuracyMatrix {
        AccuracyMatrix {
            rows: rows
                .iter()
                .map(|row| row.iter().copied().map(Some).collect())
                .collect(),
            baseline: baseline.iter().copied().map(Some).collect(),
        }
    }

    fn close(got: Option<f64>, want: f64) {
        assert!(
            (got.expect("defined") - want).abs() < 1e-12,
            "{got:?} is not {want}"
        );
    }

    fn over(measured: usize, possible: usize) -> Over {
        Over { measured, possible }
    }

    #[test]
    fn figures_of_a_hand_worked_matrix() {
        let summary = matrix(
            &[&[0.9, 0.3, 0.6], &[0.7, 0.8, 0.2], &[0.5, 0.6, 0.7]],
            &[0.1, 0.2, 0.25],
        )
        .summary();
        close(summary.avg_acc, 0.6);
        close(summary.bwt, (-0.4 - 0.2) / 2.0);
        close(summary.fwt, (0.1 - 0.05) / 2.0);
        close(summary.forgetting, (0.4 + 0.2) / 2.0);
        close(summary.learning_accuracy, 0.8);
        close(
            summary.average_incremental_accuracy,
            (0.9 + 0.75 + 0.6) / 3.0,
        );
        assert_eq!(summary.over.avg_acc, over(3, 3));
        assert_eq!(summary.over.bwt, over(2, 2));
        assert_eq!(summary.over.average_incremental_accuracy, over(6, 6));
    }

    #[test]
    fn the_two_forgettings_differ_where_a_task_was_better_before_it_was_learnt() {
        let summary = matrix(
            &[&[0.5, 0.9, 0.1], &[0.5, 0.6, 0.1], &[0.5, 0.5, 0.7]],
            &[0.0; 3],
        )
        .summary();
        close(summary.forgetting, 0.4 / 2.0);
        close(summary.forgetting_since_learnt, 0.1 / 2.0);
    }

    #[test]
    fn transfer_is_undefined_for_a_single_task() {
        let summary = matrix(&[&[0.9, 0.2]], &[0.5, 0.5]).summary();
        assert_eq!(summary.bwt.or(summary.fwt).or(summary.forgetting), None);
        close(summary.avg_acc, 0.9);
    }

    #[test]
    fn an_unmeasured_score_is_never_taken_for_zero() {
        let mut matrix = matrix(&[&[0.9, 0.2], &[0.8, 0.7]], &[0.5, 0.5]);
        matrix.rows[0][1] = None;
        let summary = matrix.summary();
        assert_eq!((summary.fwt, summary.forgetting), (None, None));
        assert_eq!(summary.over.fwt, over(0, 1));
        close(summary.bwt, -0.1);
    }

    #[test]
    fn a_figure_is_the_mean_over_the_tasks_that_have_it_and_says_over_how_many() {
        // The third task arrived when two were learnt, and nobody asked the untrained model.
        let summary = matrix(
            &[&[0.9, 0.3], &[0.7, 0.8, 0.2], &[0.5, 0.6, 0.7]],
            &[0.1, 0.2],
        )
        .summary();
        close(summary.fwt, 0.1);
        assert_eq!(summary.over.fwt, over(1, 2));
        assert_eq!(summary.over.fwt.to_string(), "over 1 of 2");
        assert!(summary.over.fwt.is_partial() && !summary.over.bwt.is_partial());
        close(summary.forgetting, 0.3);

        let mut holes = matrix(&[&[0.9, 0.3], &[0.7, 0.8]], &[]);
        holes.rows[1][0] = None;
        let summary = holes.summary();
        close(summary.avg_acc, 0.8);
        close(summary.average_incremental_accuracy, 0.85);
        assert_eq!(summary.over.avg_acc, over(1, 2));
        assert_eq!(summary.over.average_incremental_accuracy, over(2, 3));
        assert_eq!(summary.bwt, None);
    }
}
