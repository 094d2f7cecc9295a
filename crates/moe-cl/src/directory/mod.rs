//! The directory of a model: everything that it is made of, and nothing that lies elsewhere but the base and the training texts.
//!
//! ```text
//! config.toml                     settings of the run, spelt out
//! checkpoints/step-NNNNNNNN/      a manifest of parts (state.json), its hash (state.seal), and when it was (times.json)
//! parts/<sha256>                  experts, gates, heads, what the recognizer and the method remember, texts that are scored
//! events.jsonl, result.json       what happened
//! times.jsonl, times.json         when, and how long it took
//! lock                            who writes
//! ```
//!
//! A part is named by the hash of its content and written once, so that a stream of tasks costs a part per task and not a copy of
//! everything per task. Readers take no lock and write nothing. The same run made twice is the same files, but for those of times and
//! what is drawn from them.

mod checkpoints;
mod leftovers;
mod lock;
mod parity;
mod parts;
mod saved;
mod state;
mod times;

pub use checkpoints::Checkpoints;
pub use lock::Lock;
pub use parts::{Part, Parts};
pub use saved::{Saved, newest, newest_saved};
pub(crate) use state::FORMAT;
pub use state::{
    BaseRecord, HeadForm, KeptRows, Layout, Learnt, Progress, Stage, State, Stored, StoredFeatures,
    TaskSettings, TaskState, TrainingData,
};
pub use times::Times;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Name of the settings' file.
pub(crate) const CONFIG: &str = "config.toml";

/// Where the checkpoints of a run are.
pub(crate) fn checkpoints_of(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// The run that `path` belongs to: itself, or the one that a checkpoint is in.
///
/// # Errors
/// When it is neither a run's directory nor a checkpoint inside one.
pub fn run_of(path: &Path) -> Result<PathBuf> {
    let run = match path.join(state::STATE).is_file() {
        true => {
            let whole = path.canonicalize().map_err(|source| Error::File {
                path: path.into(),
                source,
            })?;
            whole.parent().and_then(Path::parent).map(Path::to_path_buf)
        }
        false => Some(path.to_path_buf()),
    };
    let there = |run: &PathBuf| run.join(CONFIG).is_file();
    run.filter(there).ok_or_else(|| Error::RunDirectory {
        path: path.into(),
        problem: "is neither a run directory (with config.toml) nor a checkpoint inside one".into(),
    })
}
