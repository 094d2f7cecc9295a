//! The accuracy matrix `R` of a stream of tasks and the figures that the field reads off it.

use serde::{Deserialize, Serialize};

/// Scores of a stream of tasks: `R[i][j]` is the score on task `j` after learning task `i`, both from 0.
///
/// The matrix grows by a row per learnt task. Every figure speaks of the tasks learnt so far, so that it also makes
/// sense in the middle of a run, and is none where a score that it needs was not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccuracyMatrix {
    /// `R`, `[learnt tasks][tasks of the stream]`.
    pub rows: Vec<Vec<Option<f64>>>,
    /// `b`, `[tasks of the stream]`: scores of the untrained model, from which forward transfer is counted.
    pub baseline: Vec<Option<f64>>,
}

/// The figures of an [`AccuracyMatrix`], each none where it is undefined (one task) or was not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean score over the learnt tasks after the last of them.
    pub avg_acc: Option<f64>,
    /// Backward transfer: below 0 means forgetting.
    pub bwt: Option<f64>,
    /// Forward transfer, against the untrained model.
    pub fwt: Option<f64>,
    /// Fall from the best score that any earlier row shows.
    pub forgetting: Option<f64>,
    /// Fall from the best score since the task was learnt.
    pub forgetting_since_learnt: Option<f64>,
    /// Mean score on each task right after learning it.
    pub learning_accuracy: Option<f64>,
    /// Mean, over the stages, of the average score at that stage.
    pub average_incremental_accuracy: Option<f64>,
}

/// The mean; none where a value is missing or there is no value at all.
fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.into_iter().collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

impl AccuracyMatrix {
    /// `R[after][task]`; none where it was not measured or the stream has not come so far.
    pub fn get(&self, after: usize, task: usize) -> Option<f64> {
        *self.rows.get(after)?.get(task)?
    }

    /// Number of tasks learnt so far.
    pub fn learnt(&self) -> usize {
        self.rows.len()
    }

    /// `1/(k+1) Σ_{j≤k} R[k][j]` for every stage `k`.
    pub fn avg_acc_after_each_task(&self) -> Vec<Option<f64>> {
        (0..self.learnt())
            .map(|k| mean((0..=k).map(|j| self.get(k, j))))
            .collect()
    }

    /// `R[T−1][i] − R[i][i]` for every task `i < T−1`.
    pub fn bwt_per_task(&self) -> Vec<Option<f64>> {
        let last = self.learnt().saturating_sub(1);
        (0..last)
            .map(|i| Some(self.get(last, i)? - self.get(i, i)?))
            .collect()
    }

    /// `R[i−1][i] − b[i]` for every task `i ≥ 1` (so the first entry is task 1's).
    pub fn fwt_per_task(&self) -> Vec<Option<f64>> {
        (1..self.learnt())
            .map(|i| Some(self.get(i - 1, i)? - (*self.baseline.get(i)?)?))
            .collect()
    }

    /// Forgetting as Avalanche 0.6 counts it, `R[j][j] − R[T−1][j]` for every task `j < T−1`: no maximum over rows.
    pub fn forgetting_avalanche_per_task(&self) -> Vec<Option<f64>> {
        self.bwt_per_task()
            .into_iter()
            .map(|b| b.map(|b| -b))
            .collect()
    }

    /// Backward transfer (Lopez-Paz & Ranzato 2017): `1/(T−1) Σ_{i<T−1} (R[T−1][i] − R[i][i])`.
    pub fn bwt(&self) -> Option<f64> {
        mean(self.bwt_per_task())
    }

    /// Forward transfer (Lopez-Paz & Ranzato 2017): `1/(T−1) Σ_{i≥1} (R[i−1][i] − b[i])`.
    pub fn fwt(&self) -> Option<f64> {
        mean(self.fwt_per_task())
    }

    /// Forgetting (Chaudhry 2018), the maximum over **all** earlier rows: `1/(T−1) Σ_{j<T−1} (max_{l<T−1} R[l][j] − R[T−1][j])`.
    ///
    /// None unless every task was measured at every stage, since a row left out could hold the maximum.
    pub fn forgetting(&self) -> Option<f64> {
        let learnt = self.learnt();
        let whole = (0..learnt).all(|i| (0..learnt).all(|j| self.get(i, j).is_some()));
        whole.then(|| self.mean_fall(|_| 0))?
    }

    /// Forgetting (Chaudhry 2018), the maximum only over the rows since the task was learnt, `j ≤ l < T−1`.
    ///
    /// It differs from [`forgetting`](Self::forgetting) where a task was better before it was learnt.
    pub fn forgetting_since_learnt(&self) -> Option<f64> {
        self.mean_fall(|task| task)
    }

    fn mean_fall(&self, first_row: impl Fn(usize) -> usize) -> Option<f64> {
        let last = self.learnt().checked_sub(1)?;
        mean((0..last).map(|j| {
            let earlier = (first_row(j)..last)
                .map(|l| self.get(l, j))
                .collect::<Option<Vec<_>>>()?;
            let best = earlier.into_iter().fold(f64::NEG_INFINITY, f64::max);
            Some(best - self.get(last, j)?)
        }))
    }

    /// Mean of the diagonal, `1/T Σ_i R[i][i]`.
    pub fn learning_accuracy(&self) -> Option<f64> {
        mean((0..self.learnt()).map(|i| self.get(i, i)))
    }

    /// `1/T Σ_i 1/(i+1) Σ_{j≤i} R[i][j]`.
    pub fn average_incremental_accuracy(&self) -> Option<f64> {
        mean(self.avg_acc_after_each_task())
    }

    /// `reference[i] − R[i][i]` for every learnt task: intransigence (Chaudhry 2018) where the reference was trained on
    /// all tasks jointly; negated, the transfer to new tasks where the reference was trained on the task alone.
    ///
    /// # Panics
    /// When the reference has fewer tasks than were learnt.
    pub fn intransigence_per_task(&self, reference: &[f64]) -> Vec<Option<f64>> {
        assert!(
            reference.len() >= self.learnt(),
            "a reference score is needed for each of the {} learnt tasks, got {}",
            self.learnt(),
            reference.len()
        );
        (0..self.learnt())
            .map(|i| Some(reference[i] - self.get(i, i)?))
            .collect()
    }

    /// Mean of [`intransigence_per_task`](Self::intransigence_per_task).
    ///
    /// # Panics
    /// When the reference has fewer tasks than were learnt.
    pub fn intransigence(&self, reference: &[f64]) -> Option<f64> {
        mean(self.intransigence_per_task(reference))
    }

    /// All figures that need nothing but the matrix.
    pub fn summary(&self) -> Summary {
        Summary {
            avg_acc: self.avg_acc_after_each_task().pop().flatten(),
            bwt: self.bwt(),
            fwt: self.fwt(),
            forgetting: self.forgetting(),
            forgetting_since_learnt: self.forgetting_since_learnt(),
            learning_accuracy: self.learning_accuracy(),
            average_incremental_accuracy: self.average_incremental_accuracy(),
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
    }

    #[test]
    fn the_two_forgettings_differ_where_a_task_was_better_before_it_was_learnt() {
        let matrix = matrix(
            &[&[0.5, 0.9, 0.1], &[0.5, 0.6, 0.1], &[0.5, 0.5, 0.7]],
            &[0.0; 3],
        );
        close(matrix.forgetting(), 0.4 / 2.0);
        close(matrix.forgetting_since_learnt(), 0.1 / 2.0);
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
        assert_eq!((matrix.fwt(), matrix.forgetting()), (None, None));
        close(matrix.bwt(), -0.1);
        close(matrix.intransigence(&[1.0, 1.0]), 0.2);
    }
}
