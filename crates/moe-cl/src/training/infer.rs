//! Scores when nobody says which task a text belongs to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    evaluate::Evaluation,
    scored::ScoredTexts,
    stream::{Task, encoder},
};
use crate::{
    base::Base,
    data::Example,
    error::Result,
    metrics::{Inferred, TextScore, auroc},
    recognizer::{Matrix, Recognized, TaskRecognizer, pooled_features},
    task_model::TaskChoice,
};

/// The task whose experts a text is sent to, or that task's fallback.
pub(super) type Route = (usize, bool);

/// How the texts of a task are answered; none where it was not asked about.
pub(super) type Answers = Option<Vec<TextScore>>;

/// What is known of the texts of a task from an earlier stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    /// How each is answered.
    pub texts: ScoredTexts,
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

/// Where the texts of a stream go when nobody says their task.
pub(super) struct Sent {
    /// Figures of the sending alone.
    scores: Inferred,
    /// Per learnt task: where its texts are sent.
    pub routes: Vec<Vec<Route>>,
    /// Per learnt task: its texts that have to be asked, by where they are sent; none where the task is not asked about.
    asked: Vec<Option<BTreeMap<Route, Vec<usize>>>>,
    /// Per learnt task: what is known of its texts already.
    scored: Vec<Answers>,
}

impl Sent {
    /// Sends the texts with these `features` per task, as `recognizer` sees them, of those tasks for which it is `given` how
    /// their texts are answered when the task is. `has_fallback` says for which tasks a text of no known task has experts of its own.
    ///
    /// A text that is sent to its own task is answered as when the task is given. One that is sent where it was sent before
    /// (`known`) is answered as before, where that task's answers did not move (`still`). Only the others have to be asked.
    pub(super) fn new(
        recognizer: &TaskRecognizer,
        features: &[Matrix],
        has_fallback: impl Fn(usize) -> bool,
        given: &[Answers],
        known: &[Known],
        still: &[bool],
    ) -> Self {
        let learnt = recognizer.tasks();
        let recognized: Vec<Vec<Recognized>> =
            features.iter().map(|it| recognizer.recognize(it)).collect();
        let mut sent = Self {
            scores: Inferred {
                accuracies: vec![None; features.len()],
                ..Inferred::default()
            },
            routes: Vec::new(),
            asked: Vec::new(),
            scored: Vec::new(),
        };
        for (index, texts) in recognized.iter().enumerate().take(learnt) {
            let mut row = BTreeMap::new();
            for text in texts {
                *row.entry(text.task).or_insert(0) += 1;
            }
            let refused = texts.iter().filter(|text| !text.known).count();
            sent.scores.confusion.push(row);
            sent.scores.refused.push(refused as u64);
            let route = |text: &Recognized| (text.task, !text.known && has_fallback(text.task));
            let routes: Vec<Route> = texts.iter().map(route).collect();
            let mut scored = given[index].clone();
            let asked = scored
                .as_mut()
                .map(|scored| left_to_ask(index, &routes, scored, known.get(index), still));
            sent.asked.push(asked);
            sent.scored.push(scored);
            sent.routes.push(routes);
        }
        let confidences = |texts: &[Vec<Recognized>]| -> Vec<f64> {
            let all = texts.iter().flatten();
            all.map(|text| text.confidence).collect()
        };
        sent.scores.open_set_auroc = auroc(
            &confidences(&recognized[..learnt]),
            &confidences(&recognized[learnt..]),
        );
        sent
    }

    /// The tasks whose experts are asked.
    pub(super) fn tasks(&self) -> BTreeSet<usize> {
        let sent = self.asked.iter().flatten().flat_map(BTreeMap::keys);
        sent.map(|(task, _)| *task).collect()
    }

    /// The scores, and per task how its texts are answered, once the others are asked of `evaluation`.
    ///
    /// # Errors
    /// When a text cannot be put in another task's words.
    pub(super) fn evaluate(
        mut self,
        evaluation: &Evaluation<'_>,
    ) -> Result<(Inferred, Vec<Answers>)> {
        for (index, asked) in self.asked.into_iter().enumerate() {
            let (Some(scored), Some(asked)) = (&mut self.scored[index], asked) else {
                continue;
            };
            for ((task, unknown), texts) in asked {
                let choice = TaskChoice {
                    method: evaluation.method,
                    task,
                    unknown,
                };
                answer(evaluation, index, choice, &texts, scored)?;
            }
            self.scores.accuracies[index] = evaluation.tasks[index].total(scored);
        }
        Ok((self.scores, self.scored))
    }
}

/// Puts what is known into `scored` of the texts of task `index` that go elsewhere, and returns those of which nothing is known.
fn left_to_ask(
    index: usize,
    routes: &[Route],
    scored: &mut [TextScore],
    known: Option<&Known>,
    still: &[bool],
) -> BTreeMap<Route, Vec<usize>> {
    let before = known.filter(|it| it.texts.inferred.0.len() == routes.len());
    let mut asked: BTreeMap<Route, Vec<usize>> = BTreeMap::new();
    for (text, &route) in routes.iter().enumerate() {
        if route == (index, false) {
            continue;
        }
        match before {
            Some(before) if before.routes.get(text) == Some(&route) && still[route.0] => {
                scored[text].clone_from(&before.texts.inferred.0[text]);
            }
            _ => asked.entry(route).or_default().push(text),
        }
    }
    asked
}

/// Answers `texts` of task `index` as `choice` does, each asked about in the words of the task that answers.
fn answer(
    evaluation: &Evaluation<'_>,
    index: usize,
    choice: TaskChoice<'_>,
    texts: &[usize],
    scored: &mut [TextScore],
) -> Result<()> {
    let Evaluation {
        tasks,
        base,
        batch_size,
        ..
    } = *evaluation;
    let (own, other) = (&tasks[index], &tasks[choice.task]);
    let encoder = encoder(&other.settings, base);
    for texts in texts.chunks(batch_size) {
        let examples: Vec<Example> = texts
            .iter()
            .map(|&text| Ok(encoder.ask(&own.evaluation_records[text], &other.data)?))
            .collect::<Result<_>>()?;
        let examples: Vec<&Example> = examples.iter().collect();
        let answers = evaluation.answers(choice, &examples)?;
        for (&text, answer) in texts.iter().zip(answers) {
            scored[text] = own.score(text, &answer);
        }
    }
    Ok(())
}
