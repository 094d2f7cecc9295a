//! What a finished run leaves behind, besides its weights: `result.json`.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::infer::RightAnswers;
use crate::{
    error::{Error, Result},
    metrics::{AccuracyMatrix, Inferred, Summary},
};

/// Name of its file.
const RESULT: &str = "result.json";

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
    pub answers: Vec<RightAnswers>,
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

/// Writes the result of the run in `out`.
///
/// # Errors
/// When the disk refuses.
pub(super) fn write_result(out: &Path, result: &RunResult) -> Result<()> {
    let path = out.join(RESULT);
    let text = serde_json::to_vec_pretty(result).map_err(io::Error::from);
    text.and_then(|text| moe_core::atomic::write_file(&path, &text))
        .map_err(|source| Error::File { path, source })
}

/// The result of the run in `out`; none where there is none, or one that cannot be read, which is then written anew.
///
/// # Errors
/// When the file is there and cannot be opened.
pub(super) fn read_result(out: &Path) -> Result<Option<RunResult>> {
    let path = out.join(RESULT);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path, source }),
    }
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
