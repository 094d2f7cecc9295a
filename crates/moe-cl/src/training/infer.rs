//! Accuracy when nobody says which task a text belongs to.

use std::collections::BTreeMap;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::{
    evaluate::{Scores, share},
    stream::Task,
};
use crate::{
    answering::Answerer,
    base::Base,
    config::Experiment,
    data::{Encoder, Example},
    error::Result,
    learner::Learner,
    methods::Method,
    metrics::{Inferred, auroc},
    predict::predict,
    router::{Matrix, Routed, TaskRouter, pooled_features},
};

/// For each text of a task, in the order of its file, whether it was answered rightly (`1`) or not (`0`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// With the task given.
    pub given: String,
    /// With the task inferred; empty where it was not.
    pub inferred: String,
}

impl Answers {
    pub(super) fn new(given: &[bool], inferred: &[bool]) -> Self {
        let written = |right: &[bool]| -> String {
            let digits = right.iter().map(|&right| if right { '1' } else { '0' });
            digits.collect()
        };
        Self {
            given: written(given),
            inferred: written(inferred),
        }
    }
}

/// The router's features of every task's evaluation texts, `[texts, d_model]` each. The frozen base alone makes them, so they hold for a whole run.
pub fn evaluation_features(base: &Base, router: &TaskRouter, tasks: &[Task]) -> Vec<Matrix> {
    let features = |task: &Task| {
        pooled_features(
            &base.decoder,
            base.pad(),
            router.layer(),
            &task.evaluation_texts,
        )
    };
    tasks.iter().map(features).collect()
}

/// What is evaluated without being told the task.
pub struct Inference<'a> {
    /// Settings of the run.
    pub experiment: &'a Experiment,
    /// The frozen base.
    pub base: &'a Base,
    /// Which experts answer.
    pub method: &'a dyn Method,
    /// What was trained, prepared for all of the tasks.
    pub learner: &'a Learner,
    /// The stream.
    pub tasks: &'a [Task],
    /// The router after the tasks learnt so far.
    pub router: &'a TaskRouter,
    /// [`evaluation_features`] of the tasks.
    pub features: &'a [Matrix],
}

impl Inference<'_> {
    /// Scores on the tasks that the router knows, and per task which texts were answered rightly.
    ///
    /// A text that is sent to its own task is answered as when the task is `given`; only the others run through the model again.
    ///
    /// # Errors
    /// When a text cannot be put in another task's words.
    pub fn evaluate(&self, given: &Scores) -> Result<(Inferred, Vec<Vec<bool>>)> {
        let learnt = self.router.tasks();
        let learner = self.learner.valid();
        let routed: Vec<Vec<Routed>> = self
            .features
            .iter()
            .map(|features| self.router.route(features))
            .collect();
        let mut inferred = Inferred {
            accuracies: vec![None; self.tasks.len()],
            ..Inferred::default()
        };
        let mut all_right = Vec::with_capacity(learnt);
        for (index, task) in self.tasks.iter().enumerate().take(learnt) {
            let mut row = BTreeMap::new();
            for routed in &routed[index] {
                *row.entry(routed.task).or_insert(0) += 1;
            }
            let refused = routed[index].iter().filter(|routed| !routed.known).count();
            inferred.confusion.push(row);
            inferred.refused.push(refused as u64);

            let mut right = task.right(&given.predictions[index]);
            for ((answering, fallback), texts) in self.sent_elsewhere(index, &routed[index]) {
                let answerer = Answerer {
                    method: self.method,
                    task: answering,
                    unknown: fallback,
                };
                self.answer(&learner, index, answerer, &texts, &mut right)?;
            }
            inferred.accuracies[index] = share(&right);
            all_right.push(right);
        }
        let confidences = |routed: &[Vec<Routed>]| -> Vec<f64> {
            let all = routed.iter().flatten();
            all.map(|routed| routed.confidence).collect()
        };
        inferred.open_set_auroc = auroc(
            &confidences(&routed[..learnt]),
            &confidences(&routed[learnt..]),
        );
        Ok((inferred, all_right))
    }

    /// The texts of task `index` that other experts than its own answer: (answering task, by its fallback) → texts.
    fn sent_elsewhere(
        &self,
        index: usize,
        routed: &[Routed],
    ) -> BTreeMap<(usize, bool), Vec<usize>> {
        let mut sent = BTreeMap::new();
        for (text, routed) in routed.iter().enumerate() {
            let fallback = !routed.known && self.method.fallback(routed.task).is_some();
            if fallback || routed.task != index {
                sent.entry((routed.task, fallback))
                    .or_insert_with(Vec::new)
                    .push(text);
            }
        }
        sent
    }

    /// Answers `texts` of task `index` as `answerer` does. An answer is right where it has the name of the true label.
    fn answer(
        &self,
        learner: &Learner,
        index: usize,
        answerer: Answerer<'_>,
        texts: &[usize],
        right: &mut [bool],
    ) -> Result<()> {
        let (own, other) = (&self.tasks[index], &self.tasks[answerer.task]);
        let base = self.base;
        let encoder = Encoder::new(
            self.experiment,
            &base.tokenizer,
            base.chat.as_ref(),
            base.end(),
        );
        for texts in texts.chunks(self.experiment.evaluation.batch_size) {
            let examples: Vec<Example> = texts
                .iter()
                .map(|&text| Ok(encoder.encode_as(&own.evaluation_records[text], &other.data)?))
                .collect::<Result<_>>()?;
            let predictions = predict(
                self.experiment.training.objective,
                base,
                learner,
                answerer,
                &examples.iter().collect::<Vec<_>>(),
                &other.answers,
            );
            for (&text, prediction) in texts.iter().zip(predictions) {
                let truth = own.evaluation[text].label.map(|label| &own.labels[label]);
                right[text] = truth.is_some() && truth == other.labels.get(prediction);
            }
        }
        Ok(())
    }
}
