//! Checkpoints of a run: directories that are written aside, synced and renamed, and that prove their own integrity.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    optim::ModuleOptimizer,
    store::{ModuleRecord, RecordError},
    tensor::Bytes,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    learner::Learner,
    metrics::{AccuracyMatrix, Inferred},
    router::TaskRouter,
    training::infer::Answers,
};

const FORMAT: u32 = 3;
/// Differs in one thing: the method's memory is part of the state, as JSON.
const FORMAT_BEFORE: u32 = 2;
const STATE: &str = "state.json";
const LEARNER: &str = "learner.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const ROUTER: &str = "router.bin";
const MEMORY: &str = "memory.bin";

/// Where a run stands, besides its tensors and what its method remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Task being learnt; equal to the number of tasks when the run is complete.
    pub task: usize,
    /// Optimiser steps done within that task: the data cursor, since batches are a function of it.
    pub step_in_task: usize,
    /// Optimiser steps done in the run.
    pub step: usize,
    /// Names of each task's labels, by class.
    pub labels: Vec<Vec<String>>,
    /// Scores so far.
    pub matrix: AccuracyMatrix,
    /// Scores with the task inferred, after each task.
    pub inferred: Vec<Inferred>,
    /// Which texts of each learnt task were answered rightly after the last task learnt.
    pub answers: Vec<Answers>,
    /// Real tokens trained on.
    pub real_tokens: u64,
    /// Seconds spent in optimiser steps.
    pub training_seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    progress: Progress,
    /// SHA-256 of the other files.
    files: BTreeMap<String, String>,
}

/// A checkpoint that has been read back and found whole.
pub struct Saved {
    /// Its directory.
    pub path: PathBuf,
    /// Where the run stood.
    pub progress: Progress,
    /// What the method kept of finished tasks ([`crate::methods::Method::memory`]).
    pub memory: Vec<u8>,
    learner: Vec<u8>,
    optimizer: Vec<u8>,
    router: Vec<u8>,
}

impl Saved {
    /// Reads the checkpoint directory `path` and checks its files against their hashes.
    ///
    /// # Errors
    /// When a file is missing, torn or of another format.
    pub fn open(path: &Path) -> Result<Self> {
        let damaged = |reason: String| Error::Checkpoint {
            path: path.into(),
            reason,
        };
        let read = |name: &str| {
            fs::read(path.join(name)).map_err(|error| damaged(format!("{name}: {error}")))
        };
        let bytes = read(STATE)?;
        let state: State =
            serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{STATE}: {error}")))?;
        if ![FORMAT, FORMAT_BEFORE].contains(&state.format) {
            return Err(damaged(format!(
                "format {}, this program reads {FORMAT}",
                state.format
            )));
        }
        let read_checked = |name: &str| {
            let bytes = read(name)?;
            match state.files.get(name) {
                Some(hash) if *hash == sha256(&bytes) => Ok(bytes),
                _ => Err(damaged(format!("{name} does not match its recorded hash"))),
            }
        };
        Ok(Self {
            path: path.into(),
            learner: read_checked(LEARNER)?,
            optimizer: read_checked(OPTIMIZER)?,
            router: read_checked(ROUTER)?,
            memory: match state.format {
                FORMAT => read_checked(MEMORY)?,
                _ => memory_before(&bytes),
            },
            progress: state.progress,
        })
    }

    /// Puts the saved weights into `learner`, which must have the structure of the saved one.
    ///
    /// # Errors
    /// When the structures differ.
    pub fn learner(&self, learner: Learner) -> Result<Learner> {
        ModuleRecord::from_bytes(Bytes::from_bytes_vec(self.learner.clone()))
            .and_then(|record| learner.try_load_record(record))
            .map_err(|error| self.damaged(LEARNER, &error))
    }

    /// Puts the saved state into `optimizer`.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn optimizer(&self, optimizer: ModuleOptimizer) -> Result<ModuleOptimizer> {
        optimizer
            .from_bytes(Bytes::from_bytes_vec(self.optimizer.clone()))
            .map_err(|error| self.damaged(OPTIMIZER, &error))
    }

    /// Puts what was learnt into `router`, which must be of the same configuration.
    ///
    /// # Errors
    /// When it is not.
    pub fn router(&self, router: TaskRouter) -> Result<TaskRouter> {
        router.read(&self.router).ok_or_else(|| Error::Checkpoint {
            path: self.path.clone(),
            reason: format!("{ROUTER} is not of a router of this configuration"),
        })
    }

    fn damaged(&self, file: &str, error: &RecordError) -> Error {
        Error::Checkpoint {
            path: self.path.clone(),
            reason: format!("{file}: {error}"),
        }
    }
}

/// The memory in a state of [`FORMAT_BEFORE`].
fn memory_before(state: &[u8]) -> Vec<u8> {
    let state: serde_json::Value = serde_json::from_slice(state).unwrap_or_default();
    match &state["progress"]["memory"] {
        serde_json::Value::Null => Vec::new(),
        memory => memory.to_string().into_bytes(),
    }
}

/// Writes a checkpoint below `directory` and returns its path. It appears whole or not at all.
///
/// # Errors
/// When the disk refuses.
pub fn save(
    directory: &Path,
    progress: &Progress,
    learner: &Learner,
    optimizer: &ModuleOptimizer,
    router: &TaskRouter,
    memory: Vec<u8>,
) -> Result<PathBuf> {
    let path = directory.join(format!("step-{:08}", progress.step));
    let refused = |reason: String| Error::Checkpoint {
        path: path.clone(),
        reason,
    };
    let record = |error: RecordError| refused(error.to_string());
    let tensors = [
        (
            LEARNER,
            learner.clone().into_record().into_bytes().map_err(record)?,
        ),
        (OPTIMIZER, optimizer.into_bytes().map_err(record)?),
        (ROUTER, Bytes::from_bytes_vec(router.to_bytes())),
        (MEMORY, Bytes::from_bytes_vec(memory)),
    ];
    let state = State {
        format: FORMAT,
        progress: progress.clone(),
        files: tensors
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), sha256(bytes)))
            .collect(),
    };
    let state = serde_json::to_vec(&state).map_err(|error| refused(error.to_string()))?;
    fs::create_dir_all(directory).map_err(|error| refused(error.to_string()))?;
    moe_core::atomic::replace_dir(&path, |aside| {
        for (name, bytes) in &tensors {
            fs::write(aside.join(name), &bytes[..])?;
        }
        fs::write(aside.join(STATE), &state)
    })
    .map_err(|error| refused(error.to_string()))?;
    Ok(path)
}

/// The newest whole checkpoint below `directory`, with a warning for each damaged one that was passed over.
///
/// # Errors
/// When the directory cannot be listed.
pub fn latest(directory: &Path) -> Result<(Option<Saved>, Vec<String>)> {
    let mut warnings = Vec::new();
    for path in listed(directory)?.into_iter().rev() {
        match Saved::open(&path) {
            Ok(saved) => return Ok((Some(saved), warnings)),
            Err(error) => warnings.push(format!("{error}; the one before it is used")),
        }
    }
    Ok((None, warnings))
}

/// Removes checkpoints older than `newest`, but for those after which a task was complete (`keep`).
///
/// # Errors
/// When the disk refuses.
pub fn prune(directory: &Path, keep: &[usize], newest: usize) -> Result<()> {
    let mut older = listed(directory)?;
    older.truncate(older.len().saturating_sub(newest));
    for path in older {
        let kept = keep
            .iter()
            .any(|step| path.ends_with(format!("step-{step:08}")));
        if !kept {
            fs::remove_dir_all(&path).map_err(|error| Error::Checkpoint {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        }
    }
    Ok(())
}

/// Checkpoint directories, oldest first.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::Checkpoint {
                path: directory.into(),
                reason: error.to_string(),
            });
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| {
                    name.strip_prefix("step-")
                        .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                })
        })
        .collect();
    paths.sort();
    Ok(paths)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::memory_before;
    use crate::seeds::{Purpose, Seeds};

    #[test]
    fn the_memory_of_an_older_checkpoint_is_found_in_its_state() {
        let state =
            br#"{"format": 2, "progress": {"task": 1, "memory": {"offered": 3, "kept": []}}}"#;
        assert_eq!(memory_before(state), br#"{"offered":3,"kept":[]}"#);
        assert!(memory_before(br#"{"format": 2, "progress": {"memory": null}}"#).is_empty());
    }

    /// What a method remembers goes through JSON; without serde_json's `float_roundtrip` the last bit would sometimes change.
    #[test]
    fn numbers_survive_json_bit_for_bit() {
        let mut rng = Seeds(1).rng(Purpose::Weights, 0, 0);
        for _ in 0..20_000 {
            let number = f64::from_bits(rng.next_u64());
            if number.is_finite() {
                let text = serde_json::to_string(&number).unwrap();
                let read: f64 = serde_json::from_str(&text).unwrap();
                assert_eq!(read.to_bits(), number.to_bits(), "{text}");
            }
        }
    }
}
