//! What a finished run leaves behind, besides its weights: `result.json`.

use serde::{Deserialize, Serialize};

use super::infer::Answers;
use crate::metrics::{AccuracyMatrix, Inferred, Summary};

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
    /// Per task, which texts were answered rightly after the last task.
    pub answers: Vec<Answers>,
    /// Optimiser steps.
    pub steps: usize,
    /// Tokens trained on that are not padding.
    pub real_tokens: u64,
    /// Seconds in optimiser steps, over all parts of a resumed run.
    pub training_seconds: f64,
    /// Wall-clock seconds of the process that finished the run.
    pub seconds: f64,
    /// Largest resident memory of that process in bytes, where the platform tells.
    pub peak_memory: Option<u64>,
    /// Bytes that the method keeps of the finished tasks besides the learner, as they are written in the last checkpoint.
    #[serde(default)]
    pub method_memory: u64,
}

/// Largest resident memory of this process in bytes, where the platform tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
