//! What happens during a run, in the order in which it happens: the one stream that logs, progress bars, dashboards and reports read.

mod backwards;
mod log;

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

pub use log::{JsonLog, Log, Logged, read_log};
pub use moe_lora::router::BalanceFigures;
use serde::{Deserialize, Deserializer, Serialize};

use crate::metrics::{Inferred, Summary};

/// One thing that happened. `step` counts optimiser steps over the whole run, from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins, or goes on after a stop (`resumed_at` is then the last step of the checkpoint used), perhaps with more tasks
    /// than before. What the last one says holds.
    RunStarted {
        /// Name of the experiment.
        name: String,
        /// Method and mode, as shown in tables (`moe_cl (improved)`).
        method: String,
        /// Seed of every random draw.
        seed: u64,
        /// Task names in the order in which they arrive.
        tasks: Vec<String>,
        /// Optimiser steps of the whole run.
        total_steps: usize,
        /// Last finished step, when the run goes on after a stop.
        resumed_at: Option<usize>,
    },
    /// Training of a task begins.
    TaskStarted {
        /// Index of the task in the stream.
        task: usize,
        /// Its name.
        name: String,
        /// Training examples.
        examples: usize,
        /// Optimiser steps that the task will take.
        steps: usize,
        /// Parameters that will move during this task.
        trainable: u64,
    },
    /// An optimiser step is done.
    Step {
        /// Index of the task.
        task: usize,
        /// Optimiser steps done in the run.
        step: usize,
        /// Loss of the task alone.
        #[serde(deserialize_with = "nan_where_null")]
        loss: f64,
        /// What else the method has to say of the step, by name. A name has two parts, `discriminator/accuracy`: what is shown
        /// together has the first in common.
        #[serde(
            default,
            skip_serializing_if = "BTreeMap::is_empty",
            deserialize_with = "named_nan_where_null"
        )]
        figures: BTreeMap<String, f64>,
        /// Learning rate used.
        learning_rate: f64,
        /// Norm of all gradients before clipping.
        #[serde(deserialize_with = "nan_where_null")]
        gradient_norm: f64,
        /// Tokens that are not padding.
        real_tokens: usize,
        /// How the step's tokens were spread over the experts of each sparse layer of the base, every `balance.every` steps.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        balance: Vec<LayerBalance>,
        /// Seconds that the step took.
        #[serde(default)]
        seconds: f64,
    },
    /// An evaluation begins.
    EvaluationStarted {
        /// Number of tasks learnt so far (0 before the first).
        after: usize,
        /// Texts that will be classified.
        examples: usize,
    },
    /// A batch of the evaluation is done.
    EvaluationStep {
        /// Texts classified since `EvaluationStarted`.
        done: usize,
    },
    /// A row of the accuracy matrix: the score on each task after `after` tasks. A task that arrives later is scored before its
    /// first step, so that a row may come again: a score that is there takes its place in it, one that is not leaves it as it was.
    Evaluated {
        /// Number of tasks learnt so far (0: the untrained model, the baseline of FWT).
        after: usize,
        /// Accuracy per task of the stream, in [0, 1]; none where it was not measured.
        scores: Vec<Option<f64>>,
        /// Texts per second.
        #[serde(default)]
        examples_per_second: f64,
    },
    /// The same row with the task of every text inferred by the router.
    Inferred {
        /// Number of tasks learnt so far, at least one.
        after: usize,
        /// Accuracies, confusion and open-set figures.
        scores: Inferred,
    },
    /// What the method has to say of each adapted layer on the task just learnt.
    LayerFigures {
        /// Index of the task.
        task: usize,
        /// What it is, in two parts as in [`Event::Step`]: `gate/shared`.
        name: String,
        /// Index of the lowest adapted layer in the decoder.
        #[serde(default)]
        first: usize,
        /// A value per adapted layer, from the input to the output.
        #[serde(deserialize_with = "listed_nan_where_null")]
        layers: Vec<f64>,
    },
    /// How the tokens of some of a task's scored texts were spread over the experts of each sparse layer of the base.
    Balance {
        /// Index of the task.
        task: usize,
        /// Number of tasks learnt so far.
        after: usize,
        /// A sparse layer each, from the input to the output.
        layers: Vec<LayerBalance>,
    },
    /// A checkpoint is on disk.
    CheckpointSaved {
        /// Optimiser steps done.
        step: usize,
        /// Number of tasks learnt so far.
        #[serde(default)]
        after: usize,
    },
    /// Something that the user should know and that does not stop the run (texts cut, labels without examples, …).
    Warning {
        /// What it is and what to do about it.
        message: String,
    },
    /// The run is complete.
    RunFinished {
        /// Summary of the accuracy matrix.
        summary: Summary,
        /// Wall-clock seconds of this process's part of the run.
        #[serde(default)]
        seconds: f64,
        /// Largest resident memory of the process in bytes, where the platform tells.
        peak_memory: Option<u64>,
    },
}

/// How evenly the router of one layer spread its tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerBalance {
    /// Index of the layer in the decoder.
    pub layer: usize,
    /// The figures.
    #[serde(flatten)]
    pub figures: BalanceFigures,
}

/// The figures of several layers as means over them, `balance/load_cv_squared` and so on.
pub fn mean_balance(layers: &[LayerBalance]) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (name, number) in layers.iter().flat_map(|it| it.figures.numbers()) {
        let (sum, count) = sums.entry(format!("balance/{name}")).or_default();
        (*sum, *count) = (*sum + number, *count + 1.0);
    }
    let mean = |(name, (sum, count))| (name, sum / count);
    sums.into_iter().map(mean).collect()
}

/// JSON has no infinities and no NaN: serde_json writes them as null, and a log that holds one must stay readable.
fn nan_where_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// As [`nan_where_null`], for numbers by name.
fn named_nan_where_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, f64>, D::Error> {
    let figures = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    let number = |(name, value): (String, Option<f64>)| (name, value.unwrap_or(f64::NAN));
    Ok(figures.into_iter().map(number).collect())
}

/// As [`nan_where_null`], for a list.
fn listed_nan_where_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(values
        .into_iter()
        .map(|value| value.unwrap_or(f64::NAN))
        .collect())
}

/// Something that takes note of events: a log, a progress bar, a dashboard.
pub trait Recorder {
    /// Takes note of one event.
    ///
    /// # Errors
    /// When the note cannot be kept (disk full, …); the run then ends rather than go on unrecorded. One that only shows the run
    /// keeps its troubles to itself.
    ///
    /// An error of the kind [`Interrupted`](std::io::ErrorKind::Interrupted) asks the run to stop: what it has learnt goes to disk,
    /// and it ends with [`Error::Stopped`](crate::Error::Stopped). Steps and batches of an evaluation are events, so that this is
    /// heard soon.
    fn record(&mut self, event: &Event) -> std::io::Result<()>;
}

/// Every recorder of the list takes note, in order; the first error ends the run.
impl Recorder for Vec<&mut dyn Recorder> {
    fn record(&mut self, event: &Event) -> std::io::Result<()> {
        self.iter_mut()
            .try_for_each(|recorder| recorder.record(event))
    }
}

/// Seconds since 1970-01-01 UTC; 0 on a machine whose clock stands before that.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |duration| duration.as_secs_f64())
}

/// As a list of borrowed recorders.
impl Recorder for Vec<Box<dyn Recorder + '_>> {
    fn record(&mut self, event: &Event) -> std::io::Result<()> {
        self.iter_mut()
            .try_for_each(|recorder| recorder.record(event))
    }
}
