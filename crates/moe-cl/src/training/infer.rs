//! Scores when nobody says which task a text belongs to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    evaluate::{Evaluation, share},
    stream::{Task, encoder},
};
use crate::{
    base::Base,
    data::Example,
    error::Result,
    metrics::{Inferred, auroc},
    recognizer::{Matrix, Recognized, TaskRecognizer, pooled_features},
    task_model::TaskChoice,
};

/// For each text of a task, in the order of its rows, whether it was answered rightly (`1`) or not (`0`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightAnswers {
    /// With the task given; empty where that was not measured.
    pub given: String,
    /// With the task inferred; empty where it was not.
    pub inferred: String,
}

impl RightAnswers {
    /// As digits.
    pub(super) fn written(right: &[bool]) -> String {
        let digits = right.iter().map(|&right| if right { '1' } else { '0' });
        digits.collect()
    }

    /// From digits.
    pub(super) fn read(digits: &str) -> Vec<bool> {
        digits.bytes().map(|digit| digit == b'1').collect()
    }
}

/// The task whose experts a text is sent to, or that task's fallback.
pub(super) type Route = (usize, bool);

/// Which texts of a task are answered rightly; none where it was not asked about.
pub(super) type Right = Option<Vec<bool>>;

/// What is known of the texts of a task from an earlier stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Which are answered rightly.
    pub right: RightAnswers,
    /// Where each was sent when the task was inferred.
    pub routes: Vec<Route>,
}

/// The recognizer's features of a task's evaluation texts, `[texts, d_model]`. The frozen base alone makes them, so they hold for as
/// long as the model lives.
pub(super) fn evaluation_features(base: &Base, recognizer: &TaskRecognizer, task: &Task) -> Matrix {
    pooled_features(
        &base.decoder,
        base.pad(),
        recognizer.layer(),
        &task.evaluation_texts,
    )
}

/// What is evaluated without being told the task.
pub(super) struct Inference<'a> {
    /// Who is asked.
    pub evaluation: Evaluation<'a>,
    /// The recognizer after the tasks learnt so far.
    pub recognizer: &'a TaskRecognizer,
    /// [`evaluation_features`] per task.
    pub features: &'a [Matrix],
}

/// Scores with the task inferred.
#[derive(Default)]
pub(super) struct InferredScores {
    /// Figures.
    pub scores: Inferred,
    /// Per learnt task: which of its texts are answered rightly; none where it was not asked about.
    pub right: Vec<Right>,
    /// Per learnt task: where its texts are sent.
    pub routes: Vec<Vec<Route>>,
}

impl Inference<'_> {
    /// Scores on those of the tasks that the recognizer knows for which it is `given` which texts are answered rightly when the task
    /// is.
    ///
    /// A text that is sent to its own task is answered as when the task is given. One that is sent where it was sent before
    /// (`known`) is answered as before, where that task's answers did not move (`still`). Only the others run through the model.
    ///
    /// # Errors
    /// When a text cannot be put in another task's words.
    pub fn evaluate(
        &self,
        given: &[Right],
        known: &[Known],
        still: &[bool],
    ) -> Result<InferredScores> {
        let (tasks, learnt) = (self.evaluation.tasks, self.recognizer.tasks());
        let recognized: Vec<Vec<Recognized>> = self
            .features
            .iter()
            .map(|features| self.recognizer.recognize(features))
            .collect();
        let mut all = InferredScores::default();
        all.scores.accuracies = vec![None; tasks.len()];
        for (index, texts) in recognized.iter().enumerate().take(learnt) {
            let mut row = BTreeMap::new();
            for text in texts {
                *row.entry(text.task).or_insert(0) += 1;
            }
            let refused = texts.iter().filter(|text| !text.known).count();
            all.scores.confusion.push(row);
            all.scores.refused.push(refused as u64);

            let routes: Vec<Route> = texts.iter().map(|text| self.route(text)).collect();
            let right = match &given[index] {
                Some(given) => Some(self.right(index, given, &routes, known.get(index), still)?),
                None => None,
            };
            all.scores.accuracies[index] = right.as_deref().and_then(share);
            all.right.push(right);
            all.routes.push(routes);
        }
        let confidences = |texts: &[Vec<Recognized>]| -> Vec<f64> {
            let all = texts.iter().flatten();
            all.map(|text| text.confidence).collect()
        };
        all.scores.open_set_auroc = auroc(
            &confidences(&recognized[..learnt]),
            &confidences(&recognized[learnt..]),
        );
        Ok(all)
    }

    fn route(&self, text: &Recognized) -> Route {
        let Evaluation {
            method, learner, ..
        } = self.evaluation;
        let fallback = !text.known && method.fallback(learner, text.task).is_some();
        (text.task, fallback)
    }

    /// Which texts of task `index` are answered rightly when they go their `routes`.
    fn right(
        &self,
        index: usize,
        given: &[bool],
        routes: &[Route],
        known: Option<&Known>,
        still: &[bool],
    ) -> Result<Vec<bool>> {
        let before = known.filter(|it| it.right.inferred.len() == routes.len());
        let before = before.map(|it| (&it.routes, RightAnswers::read(&it.right.inferred)));
        let mut right = given.to_vec();
        let mut sent: BTreeMap<Route, Vec<usize>> = BTreeMap::new();
        for (text, &route) in routes.iter().enumerate() {
            if route == (index, false) {
                continue;
            }
            match &before {
                Some((routes, answers)) if routes.get(text) == Some(&route) && still[route.0] => {
                    right[text] = answers[text];
                }
                _ => sent.entry(route).or_default().push(text),
            }
        }
        for ((task, unknown), texts) in sent {
            let choice = TaskChoice {
                method: self.evaluation.method,
                task,
                unknown,
            };
            self.answer(index, choice, &texts, &mut right)?;
        }
        Ok(right)
    }

    /// Answers `texts` of task `index` as `choice` does. An answer is right where it has the name of the true label.
    fn answer(
        &self,
        index: usize,
        choice: TaskChoice<'_>,
        texts: &[usize],
        right: &mut [bool],
    ) -> Result<()> {
        let Evaluation {
            tasks,
            base,
            batch_size,
            ..
        } = self.evaluation;
        let (own, other) = (&tasks[index], &tasks[choice.task]);
        let encoder = encoder(&other.settings, base);
        for texts in texts.chunks(batch_size) {
            let examples: Vec<Example> = texts
                .iter()
                .map(|&text| Ok(encoder.encode_as(&own.evaluation_records[text], &other.data)?))
                .collect::<Result<_>>()?;
            let examples: Vec<&Example> = examples.iter().collect();
            let predictions = self.evaluation.predict(choice, &examples);
            for (&text, prediction) in texts.iter().zip(predictions) {
                let truth = own.evaluation[text].label.map(|label| &own.labels[label]);
                right[text] = truth.is_some() && truth == other.labels.get(prediction);
            }
        }
        Ok(())
    }
}
