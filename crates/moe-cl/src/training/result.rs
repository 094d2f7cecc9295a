//! What a finished run leaves behind, besides its weights: `result.json`.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{infer::Known, scored::ScoredTexts};
use crate::{
    checked,
    config::Experiment,
    directory::{Progress, Saved, Stage, Times},
    error::{Error, Result},
    methods::method,
    metrics::{AccuracyMatrix, Inferred, Summary, TextMetric},
};

/// Name of its file.
const RESULT: &str = "result.json";

/// Name of the file that says what it took.
const TIMES: &str = "times.json";

/// Outcome of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Name of the experiment.
    pub name: String,
    /// Method and mode.
    pub method: String,
    /// Seed of every random draw.
    pub seed: u64,
    /// Task names in the order in which they arrived.
    pub tasks: Vec<String>,
    /// Scores after each task, with the task given at test time (oracle).
    pub matrix: AccuracyMatrix,
    /// Its summary.
    pub summary: Summary,
    /// Scores after each task with the task of every text inferred.
    pub inferred: Vec<Inferred>,
    /// Per task, how its answers are scored: none for the accuracy of labels.
    #[serde(default)]
    pub metrics: Vec<Option<TextMetric>>,
    /// Per task, how its texts were answered after the last task.
    pub answers: Vec<ScoredTexts>,
    /// Optimiser steps.
    pub steps: usize,
    /// Tokens trained on that are not padding.
    pub real_tokens: u64,
    /// Bytes that the method keeps of the finished tasks besides the learner, as they are written in the last checkpoint.
    #[serde(default)]
    pub method_memory: u64,
    /// How long it took; in a file of its own.
    #[serde(skip)]
    pub times: RunTimes,
}

/// What a run took, in `times.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunTimes {
    /// Seconds in optimiser steps, over all parts of a resumed run.
    pub training_seconds: f64,
    /// Wall-clock seconds of the process that finished the run.
    pub seconds: f64,
    /// Largest resident memory of that process in bytes while the run went on, where the platform tells.
    pub peak_memory: Option<u64>,
}

impl RunResult {
    /// What the scores so far, `stages`, tell of a run, whose process has just begun.
    pub(super) fn so_far(
        experiment: &Experiment,
        (progress, times): (&Progress, &Times),
        (tasks, metrics): (Vec<String>, Vec<Option<TextMetric>>),
        stages: Vec<Stage>,
        answers: Vec<ScoredTexts>,
        method_memory: u64,
    ) -> Self {
        let (mut scores, inferred): (Vec<_>, Vec<_>) = stages
            .into_iter()
            .map(|stage| (stage.scores, stage.inferred))
            .unzip();
        let rows = scores.split_off(scores.len().min(1));
        let matrix = AccuracyMatrix {
            baseline: scores.pop().unwrap_or_default(),
            rows,
        };
        Self {
            name: experiment.name.clone(),
            method: method(&experiment.method, tasks.len()).name(),
            seed: experiment.seed,
            tasks,
            summary: matrix.summary(),
            matrix,
            inferred: inferred.into_iter().flatten().collect(),
            metrics,
            answers,
            steps: progress.step,
            real_tokens: progress.real_tokens,
            method_memory,
            times: RunTimes {
                training_seconds: times.training_seconds,
                ..RunTimes::default()
            },
        }
    }

    /// The outcome that a checkpoint tells of.
    ///
    /// # Errors
    /// When a part is damaged.
    pub(super) fn of_checkpoint(saved: &Saved) -> Result<Self> {
        let state = &saved.state;
        let learnt = state.tasks.iter().take(state.progress.task);
        let answers = learnt.map(|task| match &task.answers {
            Some(part) => Ok(saved.json::<Known>(part)?.texts),
            None => Ok(ScoredTexts::default()),
        });
        let names = state
            .tasks
            .iter()
            .map(|task| (task.config.name.clone(), task.metric));
        let memory = state.layout.memory.iter().map(|it| it.part.bytes);
        Ok(Self::so_far(
            &state.experiment,
            (&state.progress, &saved.times),
            names.unzip(),
            saved.stages()?,
            answers.collect::<Result<_>>()?,
            memory.sum(),
        ))
    }
}

/// Writes the result of the run in `out`.
///
/// # Errors
/// When the disk refuses.
pub(super) fn write_result(out: &Path, result: &RunResult) -> Result<()> {
    let write = |name: &str, bytes: serde_json::Result<Vec<u8>>| {
        let path = out.join(name);
        bytes
            .map_err(io::Error::from)
            .and_then(|bytes| moe_core::atomic::write_file(&path, &bytes))
            .map_err(|source| Error::File { path, source })
    };
    write(TIMES, checked::to_line(&result.times, b""))?;
    write(RESULT, serde_json::to_vec_pretty(result))
}

/// The result of the run in `out`, where it is there and what its last checkpoint tells.
///
/// # Errors
/// When a part of the checkpoint is damaged.
pub(super) fn read_result(out: &Path, saved: &Saved) -> Result<Option<RunResult>> {
    let told = RunResult::of_checkpoint(saved)?;
    let read = || -> io::Result<Option<RunResult>> {
        let is_told = fs::read(out.join(RESULT))? == serde_json::to_vec_pretty(&told)?;
        let times = checked::from_line(&fs::read(out.join(TIMES))?, b"")?;
        Ok(is_told.then_some(RunResult { times, ..told }))
    };
    // What cannot be read is written anew.
    Ok(read().unwrap_or(None))
}
