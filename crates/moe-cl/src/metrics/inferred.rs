//! What it costs not to be told the task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AccuracyMatrix, mean};

/// Scores with the task of every text inferred, after some tasks of the stream.
///
/// Answers are compared as label names: where tasks share their labels, a text sent to the wrong task may still be answered rightly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inferred {
    /// Accuracy per task of the stream; none for those not learnt yet.
    pub accuracies: Vec<Option<f64>>,
    /// `[learnt]`: how many texts of task `i` have `j` as their best-scoring task, where there are any. Most pairs of tasks have
    /// none, so that a table of all pairs at every stage would make logs grow with the cube of the number of tasks.
    #[serde(with = "rows_of_pairs")]
    pub confusion: Vec<BTreeMap<usize, u64>>,
    /// Per learnt task: how many of its texts were taken for no known task's.
    pub refused: Vec<u64>,
    /// Area under the ROC curve of "belongs to a known task": texts of learnt tasks against those of tasks still to come.
    /// None after the last task, when there are no strangers.
    pub open_set_auroc: Option<f64>,
}

impl Inferred {
    /// Share of task `i`'s texts whose best-scoring task is `i`; none without texts.
    pub fn routing_accuracy_of(&self, task: usize) -> Option<f64> {
        let texts = self.texts_of(task);
        (texts > 0).then(|| self.sent(task, task) as f64 / texts as f64)
    }

    /// How many texts of task `task` have `other` as their best-scoring task.
    pub fn sent(&self, task: usize, other: usize) -> u64 {
        let row = self.confusion.get(task);
        row.and_then(|row| row.get(&other)).copied().unwrap_or(0)
    }

    /// Texts of task `task`.
    pub fn texts_of(&self, task: usize) -> u64 {
        let row = self.confusion.get(task);
        row.map_or(0, |row| row.values().sum())
    }

    /// Mean of [`Self::routing_accuracy_of`] over the learnt tasks that have texts.
    pub fn routing_accuracy(&self) -> Option<f64> {
        mean((0..self.confusion.len()).filter_map(|task| self.routing_accuracy_of(task)))
    }

    /// Mean accuracy over the learnt tasks, the task of every text inferred.
    pub fn avg_acc(&self) -> Option<f64> {
        mean(self.accuracies.iter().copied().flatten())
    }

    /// The price of not being told: mean accuracy with the task given, less that with the task inferred.
    pub fn price(&self, given: &[Option<f64>]) -> Option<f64> {
        mean(
            self.accuracies
                .iter()
                .zip(given)
                .filter_map(|(inferred, given)| Some((*given)? - (*inferred)?)),
        )
    }

    /// [`Self::price`] against the row of `matrix` after as many tasks.
    pub fn price_in(&self, matrix: &AccuracyMatrix) -> Option<f64> {
        self.price(matrix.rows.get(self.confusion.len().checked_sub(1)?)?)
    }
}

/// Mean, over the stages that have one, of the open-set AUROC.
pub fn mean_open_set_auroc<'a>(stages: impl IntoIterator<Item = &'a Inferred>) -> Option<f64> {
    mean(stages.into_iter().filter_map(|stage| stage.open_set_auroc))
}

/// Rows as `[task, count]` pairs: a JSON object has texts for keys, which an event of a log could not read back as numbers.
mod rows_of_pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(
        rows: &[BTreeMap<usize, u64>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs = |row: &BTreeMap<usize, u64>| row.clone().into_iter().collect();
        let rows: Vec<Vec<(usize, u64)>> = rows.iter().map(pairs).collect();
        rows.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<BTreeMap<usize, u64>>, D::Error> {
        let rows = Vec::<Vec<(usize, u64)>>::deserialize(deserializer)?;
        Ok(rows
            .into_iter()
            .map(|row| row.into_iter().collect())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_worked_confusion() {
        let inferred = Inferred {
            accuracies: vec![Some(0.5), Some(0.7), None],
            confusion: vec![BTreeMap::from([(0, 3), (1, 1)]), BTreeMap::from([(1, 2)])],
            refused: vec![1, 0],
            open_set_auroc: Some(0.9),
        };
        assert_eq!(inferred.texts_of(0), 4);
        assert_eq!((inferred.sent(0, 1), inferred.sent(1, 0)), (1, 0));
        assert_eq!(inferred.routing_accuracy_of(0), Some(0.75));
        assert_eq!(inferred.routing_accuracy(), Some(0.875));
        assert_eq!(inferred.avg_acc(), Some(0.6));
        let given = vec![Some(0.75), Some(0.7), Some(0.1)];
        assert_eq!(inferred.price(&given), Some(0.125));
        let matrix = AccuracyMatrix {
            rows: vec![vec![None; 3], given],
            baseline: vec![],
        };
        assert_eq!(inferred.price_in(&matrix), Some(0.125));
    }
}
