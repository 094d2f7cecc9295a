//! What a run left behind, as the table needs it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use moe_cl::{
    directory::{Layout, Part, Saved, TaskState},
    metrics::{AccuracyMatrix, Inferred},
    training::RunResult,
};
use moe_report::RunData;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    ability::{self, Abilities},
    stage::stage,
    stripping::{self, Course},
};

/// A run of the comparison and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The method as it was named.
    pub method: String,
    /// Number of the suite's order.
    pub order: usize,
    /// Seed.
    pub seed: u64,
    /// Its figures, or why there are none.
    pub outcome: Result<Outcome, String>,
}

/// Figures of a run that came to its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Where the run is; none for what is not trained by steps.
    pub folder: Option<PathBuf>,
    /// Task names in their order.
    pub tasks: Vec<String>,
    /// Scores with the task given.
    pub matrix: AccuracyMatrix,
    /// Scores with the task inferred, after each task.
    pub inferred: Vec<Inferred>,
    /// Per task: the score of each text after the last task, the task given.
    #[serde(skip)]
    pub texts: Vec<Vec<f64>>,
    /// Parameters that move while a task is learnt, mean over the tasks.
    pub trainable: Option<f64>,
    /// Bytes that a task adds to what is kept for answering and learning on, router included; mean over the tasks.
    pub bytes: Option<f64>,
    /// Seconds in optimiser steps per task.
    pub seconds: Option<f64>,
    /// Tokens trained on per task, padding not counted.
    pub tokens: Option<f64>,
    /// Largest resident memory of the process in bytes.
    pub peak_memory: Option<f64>,
    /// Seconds of optimiser steps per token, padding not counted, for each task in turn; none where a task took no step.
    pub seconds_per_token: Vec<Option<f64>>,
    /// Stripping rates before and after each task, per task.
    pub stripping: Option<Vec<Course>>,
    /// What the base could do, and can do after the last task.
    pub ability: Option<Abilities>,
}

impl Outcome {
    /// Reads a finished run.
    ///
    /// # Errors
    /// When it is not finished or a file is damaged.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("result.json");
        let bytes = std::fs::read(&path)
            .with_context(|| format!("{}: the run is not finished", path.display()))?;
        let result: RunResult =
            serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
        let log = RunData::load(folder)?;
        let tasks = result.tasks.len().max(1) as f64;
        let trainable = log.spans.iter().map(|span| span.trainable as f64);
        let metrics = result.metrics.iter().chain(std::iter::repeat(&None));
        let texts = result.answers.iter().zip(metrics);
        let texts = texts.map(|(answers, metric)| answers.given.of_texts(*metric));
        Ok(Self {
            texts: texts.collect(),
            trainable: Some(trainable.sum::<f64>() / tasks),
            bytes: kept_bytes(folder, result.tasks.len())?.map(|bytes| bytes / tasks),
            seconds: Some(result.times.training_seconds / tasks),
            tokens: Some(result.real_tokens as f64 / tasks),
            peak_memory: result.times.peak_memory.map(|bytes| bytes as f64),
            seconds_per_token: seconds_per_token(&log),
            stripping: read_if_there(&folder.join(stripping::FILE))?,
            ability: read_if_there(&folder.join(ability::FILE))?,
            folder: Some(folder.into()),
            tasks: result.tasks,
            matrix: result.matrix,
            inferred: result.inferred,
        })
    }

    /// Accuracy of each task at the end.
    pub fn at_the_end(&self) -> Vec<Option<f64>> {
        self.matrix.rows.last().cloned().unwrap_or_default()
    }
}

/// A file of JSON; none where there is no such file.
fn read_if_there<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Of the steps of each task.
fn seconds_per_token(log: &RunData) -> Vec<Option<f64>> {
    let of_task = |task: usize| {
        let steps = log.steps.iter().filter(|step| step.task == task);
        let (seconds, tokens) = steps.fold((0.0, 0), |(seconds, tokens), step| {
            (seconds + step.seconds, tokens + step.real_tokens)
        });
        (tokens > 0).then(|| seconds / tokens as f64)
    };
    (0..log.tasks.len()).map(of_task).collect()
}

/// What the checkpoint after all `tasks` keeps, less what the one that knows no task does; none where there are no such checkpoints.
fn kept_bytes(folder: &Path, tasks: usize) -> anyhow::Result<Option<f64>> {
    let size = |saved: Saved| bytes(&saved.state.layout, &saved.state.tasks);
    let (end, start) = (stage(folder, tasks)?, stage(folder, 0)?);
    Ok(end.zip(start).map(|(end, start)| size(end) - size(start)))
}

/// Bytes of experts, gates, heads and what method and recognizer remember, each part counted once: not the optimiser's state, which no
/// finished task needs, and nothing of the texts that are scored.
fn bytes(layout: &Layout, tasks: &[TaskState]) -> f64 {
    let Layout {
        next: _,
        experts,
        gates,
        own,
        memory,
        recognizer,
        optimizer: _,
    } = layout;
    let heads = tasks.iter().filter_map(|task| task.head.as_ref());
    let parts = experts
        .iter()
        .map(|it| &it.part)
        .chain(gates.iter().map(|it| &it.part))
        .chain(own.iter().map(|it| &it.part))
        .chain(memory.iter().map(|it| &it.part))
        .chain(recognizer)
        .chain(heads.map(|it| &it.part));
    let once: BTreeSet<&Part> = parts.collect();
    once.iter().map(|part| part.bytes as f64).sum()
}

#[cfg(test)]
mod tests {
    use moe_cl::directory::Stored;
    use moe_lora::{ExpertId, GateId, NextIds};

    use super::*;

    #[test]
    fn a_part_counts_once_and_the_optimiser_does_not() {
        let named = |name: &str, content: &[u8]| Stored {
            is: name.to_owned(),
            part: Part::of(content),
        };
        let layout = Layout {
            next: NextIds {
                expert: ExpertId(0),
                gate: GateId(0),
            },
            experts: Vec::new(),
            gates: Vec::new(),
            own: None,
            memory: vec![named("first", b"same"), named("second", b"same")],
            recognizer: vec![Part::of(b"other one")],
            optimizer: Some(Part::of(b"thrown away")),
        };
        assert_eq!(bytes(&layout, &[]), 4.0 + 9.0);
    }
}
