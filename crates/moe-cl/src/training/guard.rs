//! What a new task costs the earlier ones, before it is adopted.

use burn::module::Module;
use serde::Serialize;

use super::{infer::Answers, read::kept_task, scheduler::Run, session::ReadBack, stream::Task};
use crate::{
    base::Base,
    config::Split,
    directory::{Parts, TaskState},
    error::{Error, Result},
};

/// A task that was not adopted, and whom it would have cost what.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// The earlier task that loses most.
    pub task: String,
    /// How much of its score on its dev part.
    pub lost: f64,
    /// Its score before and after.
    pub scores: (f64, f64),
    /// Whether that is with the task inferred rather than given.
    pub inferred: bool,
    /// The most that was allowed.
    pub allowed: f64,
}

/// How the texts of the dev parts of the earlier tasks are answered.
pub(super) struct DevScores {
    /// With the task given, per task.
    given: Vec<Answers>,
    /// With the task inferred.
    inferred: Vec<Answers>,
}

impl DevScores {
    /// The earlier tasks with their dev parts, and after them the new one, to which their texts may be sent.
    ///
    /// # Errors
    /// When an earlier one has no dev part: what the new task costs it cannot be told.
    pub(super) fn tasks(
        earlier: &[TaskState],
        new: &TaskState,
        parts: &Parts,
        base: &Base,
    ) -> Result<Vec<Task>> {
        if let Some(lacking) = earlier.iter().find(|task| task.dev.rows == 0) {
            return Err(Error::CannotLearn {
                task: lacking.config.name.clone(),
                problem: "it was learnt without a dev part, so that a guard cannot tell what a new task costs it; learn without --guard".into(),
            });
        }
        let tasks = earlier.iter().chain([new]);
        tasks
            .map(|task| kept_task(task, parts, Split::Dev, base))
            .collect()
    }

    /// Before the new task: of the run as it stands, or of the model `before` it was begun.
    ///
    /// # Errors
    /// When a text cannot be put in another task's words.
    pub(super) fn before(
        run: &mut Run<'_>,
        before: Option<ReadBack>,
        dev: &[Task],
    ) -> Result<Self> {
        match before {
            Some(before) => {
                let (learner, recognizer) = (before.model.learner, before.model.recognizer);
                run.dev_scores(&learner.valid(), &recognizer, dev, None)
            }
            None => {
                let (learner, recognizer) = run.model();
                run.dev_scores(&learner.valid(), &recognizer, dev, None)
            }
        }
        .map(|(given, inferred)| Self { given, inferred })
    }

    /// After it. What stands still with the task given is not asked again.
    ///
    /// # Errors
    /// As [`Self::before`].
    pub(super) fn after(run: &mut Run<'_>, dev: &[Task], before: &Self) -> Result<Self> {
        let (learner, recognizer) = run.model();
        let known = Some(before.given.as_slice());
        let (given, inferred) = run.dev_scores(&learner.valid(), &recognizer, dev, known)?;
        Ok(Self { given, inferred })
    }

    /// The refusal of a task by which an earlier one loses more than `allowed`.
    pub(super) fn refusal(&self, after: &Self, dev: &[Task], allowed: f64) -> Option<Refusal> {
        let earlier = dev.iter().take(self.inferred.len());
        let losses = earlier.enumerate().flat_map(|(index, task)| {
            let pairs = [
                (&self.given[index], &after.given[index], false),
                (&self.inferred[index], &after.inferred[index], true),
            ];
            pairs
                .into_iter()
                .filter_map(move |(before, after, inferred)| {
                    let before = task.total(before.as_deref()?)?;
                    let after = task.total(after.as_deref()?)?;
                    Some(Refusal {
                        task: task.name.clone(),
                        lost: before - after,
                        scores: (before, after),
                        inferred,
                        allowed,
                    })
                })
        });
        let worst = losses.max_by(|a, b| a.lost.total_cmp(&b.lost))?;
        // A loss of exactly what is allowed is allowed, rounding apart.
        (worst.lost > allowed + 1e-9).then_some(worst)
    }
}
