//! The accuracy matrix `R` of a stream of tasks, and what it says of each task.

use serde::{Deserialize, Serialize};

use super::mean;

/// Scores of a stream of tasks: `R[i][j]` is the score on task `j` after learning task `i`, both from 0.
///
/// The matrix grows while its model lives: by a row per learnt task, and by a column per task that arrives. A row that was written
/// before a task arrived ends before its column, and so may the baseline. A column that a row does have may still be none: nobody
/// measured it. What was never measured stays empty and is never taken for 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccuracyMatrix {
    /// `R`, `[learnt tasks][tasks known at that time]`.
    pub rows: Vec<Vec<Option<f64>>>,
    /// `b`, `[tasks]`: scores of the untrained model, from which forward transfer is counted.
    pub baseline: Vec<Option<f64>>,
}

impl AccuracyMatrix {
    /// `R[after][task]`; none where it was not measured or the stream has not come so far.
    pub fn get(&self, after: usize, task: usize) -> Option<f64> {
        *self.rows.get(after)?.get(task)?
    }

    /// Scores after `after` tasks, `[tasks known at that time]`, 0 being the untrained model; empty where there are none.
    pub fn after(&self, after: usize) -> &[Option<f64>] {
        match after.checked_sub(1) {
            None => &self.baseline,
            Some(row) => self.rows.get(row).map_or(&[], Vec::as_slice),
        }
    }

    /// Takes in the scores after `after` tasks, 0 being the untrained model. They may come in parts: a score that is there takes its
    /// place, one that is not leaves what was there. Rows that were passed over count as not measured.
    pub fn merge(&mut self, after: usize, scores: &[Option<f64>]) {
        let row = match after.checked_sub(1) {
            None => &mut self.baseline,
            Some(row) => {
                if self.rows.len() < row {
                    self.rows.resize(row, vec![None; scores.len()]);
                }
                if self.rows.len() == row {
                    self.rows.push(Vec::new());
                }
                &mut self.rows[row]
            }
        };
        row.resize(row.len().max(scores.len()), None);
        for (place, score) in row.iter_mut().zip(scores) {
            *place = score.or(*place);
        }
    }

    /// The score on a task of the model that had not begun to learn it: the untrained one's, or where the task arrived later the last one
    /// before it.
    pub fn before(&self, task: usize) -> Option<f64> {
        let untrained = self.baseline.get(task).copied().flatten();
        untrained.or_else(|| self.get(task.checked_sub(1)?, task))
    }

    /// Learnt tasks whose last score is below that [before](Self::before) they were learnt.
    pub fn worse_than_before(&self) -> Vec<usize> {
        let Some(last) = self.learnt().checked_sub(1) else {
            return Vec::new();
        };
        let worse = |&task: &usize| {
            let scores = self.get(last, task).zip(self.before(task));
            scores.is_some_and(|(now, before)| now < before)
        };
        (0..=last).filter(worse).collect()
    }

    /// Number of tasks learnt so far.
    pub fn learnt(&self) -> usize {
        self.rows.len()
    }

    /// `R[i][i]`: the score on each learnt task right after learning it.
    pub fn when_learnt(&self) -> Vec<Option<f64>> {
        (0..self.learnt()).map(|i| self.get(i, i)).collect()
    }

    /// The mean of `R[k][j]` over the measured tasks `j ≤ k`, for every stage `k`.
    pub fn avg_acc_after_each_task(&self) -> Vec<Option<f64>> {
        (0..self.learnt())
            .map(|k| mean((0..=k).filter_map(|j| self.get(k, j))))
            .collect()
    }

    /// Backward transfer `R[T−1][i] − R[i][i]` of every task `i < T−1`; none where either score is missing.
    pub fn bwt_per_task(&self) -> Vec<Option<f64>> {
        let last = self.learnt().saturating_sub(1);
        (0..last)
            .map(|i| Some(self.get(last, i)? - self.get(i, i)?))
            .collect()
    }

    /// Forward transfer `R[i−1][i] − b[i]` of every task `i ≥ 1` (so the first entry is task 1's); none where either score is missing.
    pub fn fwt_per_task(&self) -> Vec<Option<f64>> {
        (1..self.learnt())
            .map(|i| Some(self.get(i - 1, i)? - (*self.baseline.get(i)?)?))
            .collect()
    }

    /// Forgetting with the maximum over **all** earlier rows, `max_{l<T−1} R[l][j] − R[T−1][j]` of every task `j < T−1`. The rows of a
    /// task that arrived later begin with the first that has its column.
    ///
    /// None for all tasks unless every learnt task was measured at every stage since it arrived: a score left out could be the
    /// maximum, and without the stages before a task was learnt this is another figure, [`Self::forgetting_since_learnt_per_task`].
    pub fn forgetting_per_task(&self) -> Vec<Option<f64>> {
        let learnt = self.learnt();
        let arrived = |task: usize| self.rows.iter().position(|row| row.len() > task);
        let whole = (0..learnt).all(|j| {
            arrived(j).is_some_and(|first| (first..learnt).all(|i| self.get(i, j).is_some()))
        });
        (0..learnt.saturating_sub(1))
            .map(|j| self.fall(j, arrived(j).filter(|_| whole)?))
            .collect()
    }

    /// Forgetting with the maximum only over the rows since the task was learnt, `max_{j≤l<T−1} R[l][j] − R[T−1][j]` of every task
    /// `j < T−1`; none where one of these rows does not have the task's score.
    ///
    /// It differs from [`Self::forgetting_per_task`] where a task was better before it was learnt.
    pub fn forgetting_since_learnt_per_task(&self) -> Vec<Option<f64>> {
        (0..self.learnt().saturating_sub(1))
            .map(|j| self.fall(j, j))
            .collect()
    }

    /// `max_{first≤l<T−1} R[l][task] − R[T−1][task]`.
    fn fall(&self, task: usize, first: usize) -> Option<f64> {
        let last = self.learnt().checked_sub(1)?;
        let earlier = (first..last)
            .map(|l| self.get(l, task))
            .collect::<Option<Vec<f64>>>()?;
        Some(earlier.into_iter().reduce(f64::max)? - self.get(last, task)?)
    }

    /// `reference[i] − R[i][i]` of every learnt task: intransigence (Chaudhry 2018) where the reference was trained on all tasks
    /// jointly; negated, the transfer to new tasks where the reference was trained on the task alone. None where either is missing.
    pub fn intransigence_per_task(&self, reference: &[Option<f64>]) -> Vec<Option<f64>> {
        (0..self.learnt())
            .map(|i| Some((*reference.get(i)?)? - self.get(i, i)?))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_worse_than_before_where_its_last_score_is_below_the_untrained_models() {
        let some = |scores: &[f64]| scores.iter().copied().map(Some).collect::<Vec<_>>();
        let mut matrix = AccuracyMatrix {
            baseline: some(&[0.5, 0.3]),
            rows: vec![some(&[0.9, 0.2]), some(&[0.4, 0.3, 0.6])],
        };
        assert_eq!(matrix.worse_than_before(), [0]);
        // The third task arrived when two were learnt; nobody asked the untrained model.
        matrix.rows.push(some(&[0.5, 0.3, 0.5]));
        assert_eq!(matrix.before(2), Some(0.6));
        assert_eq!(matrix.worse_than_before(), [2]);
        assert!(AccuracyMatrix::default().worse_than_before().is_empty());
    }

    #[test]
    fn scores_that_come_in_parts_make_one_row() {
        let mut matrix = AccuracyMatrix::default();
        matrix.merge(0, &[Some(0.5)]);
        matrix.merge(1, &[Some(0.9)]);
        // A second task arrives: it is scored in the rows that there are.
        matrix.merge(0, &[None, Some(0.4)]);
        matrix.merge(1, &[None, Some(0.3)]);
        matrix.merge(2, &[Some(0.8), Some(0.7)]);
        assert_eq!(matrix.baseline, [Some(0.5), Some(0.4)]);
        assert_eq!(
            matrix.rows,
            [[Some(0.9), Some(0.3)], [Some(0.8), Some(0.7)]]
        );
    }

    #[test]
    fn a_row_that_was_passed_over_is_not_measured() {
        let mut matrix = AccuracyMatrix::default();
        matrix.merge(2, &[Some(0.8), Some(0.7)]);
        assert_eq!(matrix.rows[0], [None, None]);
        assert_eq!(matrix.get(1, 1), Some(0.7));
    }

    #[test]
    fn a_task_that_arrived_later_is_forgotten_from_its_first_score_on() {
        let mut matrix = AccuracyMatrix::default();
        matrix.merge(1, &[Some(0.9)]);
        matrix.merge(2, &[Some(0.9), Some(0.7), Some(0.8)]);
        matrix.merge(3, &[Some(0.5), Some(0.6), Some(0.75)]);
        let falls: Vec<f64> = matrix.forgetting_per_task().into_iter().flatten().collect();
        assert_eq!(falls, [0.9 - 0.5, 0.7 - 0.6]);
        // A hole is no late arrival: what it hides could be the maximum.
        matrix.rows[0] = vec![Some(0.9), None];
        assert_eq!(matrix.forgetting_per_task(), [None, None]);
    }
}
