//! Checkpoints: manifests that are written aside, synced and renamed, and that prove their own integrity.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    Part, Parts, State, TaskState, checkpoints_of,
    state::{FORMAT, STATE},
};
use crate::error::{Error, Result};

/// Name of the file with the manifest's hash.
const HASH: &str = "state.sha256";

/// Checkpoints in the middle of a task that are kept.
const NEWEST_KEPT: usize = 2;

/// A checkpoint that has been read back.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its directory.
    pub path: PathBuf,
    /// What it says.
    pub state: State,
    /// Where its parts are.
    pub parts: Parts,
}

impl Saved {
    /// Reads the checkpoint directory `path`. Its parts are there; their content is checked when it is read.
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
        if let Ok(Format { format }) = serde_json::from_slice(&bytes)
            && format != FORMAT
        {
            return Err(Error::CheckpointFormat {
                path: path.into(),
                found: format,
                reads: FORMAT,
            });
        }
        if read(HASH)? != hash(&bytes).as_bytes() {
            return Err(damaged(format!("{STATE} does not match its recorded hash")));
        }
        let state: State =
            serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{STATE}: {error}")))?;
        // Below a run's directory, whatever that is called today.
        let whole = path.canonicalize();
        let whole = whole.map_err(|error| damaged(error.to_string()))?;
        let run = whole.parent().and_then(Path::parent);
        let parts = Parts::of_run(run.ok_or_else(|| damaged("is in no run's directory".into()))?);
        state.parts().try_for_each(|part| parts.check(part))?;
        Ok(Self {
            path: path.into(),
            state,
            parts,
        })
    }

    /// An error about this checkpoint.
    pub fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Checkpoint {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }
}

/// All that is read of a manifest of another format.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The checkpoints of a run, for the one process that writes them.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    parts: Parts,
    /// How many manifests name each part.
    named: BTreeMap<Part, usize>,
    /// Per checkpoint: whether it is one between tasks, and the parts that it names.
    kept: BTreeMap<PathBuf, (bool, Vec<Part>)>,
}

impl Checkpoints {
    /// Those of the run in `run`.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn open(run: &Path) -> Result<Self> {
        let folder = checkpoints_of(run);
        let mut all = Self {
            parts: Parts::of_run(run),
            named: BTreeMap::new(),
            kept: BTreeMap::new(),
            folder,
        };
        for path in listed(&all.folder)? {
            // What is damaged names nothing, and stays for whoever wants to look.
            if let Ok(saved) = Saved::open(&path) {
                let _ = all.note(path, &saved.state);
            }
        }
        Ok(all)
    }

    /// The parts of the run.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Writes a checkpoint and returns its path. It appears whole or not at all. Then removes what is no longer kept: of those in the
    /// middle of a task all but the newest two, of those between tasks all but the newest `keep`; never this one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&mut self, state: &State, keep: usize) -> Result<PathBuf> {
        let path = self.folder.join(format!("step-{:08}", state.progress.step));
        let refused = |reason: String| Error::Checkpoint {
            path: path.clone(),
            reason,
        };
        let bytes = serde_json::to_vec(state).map_err(|error| refused(error.to_string()))?;
        fs::create_dir_all(&self.folder).map_err(|error| refused(error.to_string()))?;
        moe_core::atomic::replace_dir(&path, |aside| {
            fs::write(aside.join(STATE), &bytes)?;
            fs::write(aside.join(HASH), hash(&bytes))
        })
        .map_err(|error| refused(error.to_string()))?;
        for part in self.note(path.clone(), state) {
            self.parts.remove(&part)?;
        }
        self.prune(&path, keep)?;
        Ok(path)
    }

    /// Removes the parts that no checkpoint and none of `tasks` names: what a process has left that was killed between a part and its
    /// manifest. Where a checkpoint cannot be read, nothing is removed, since it may name any of them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sweep<'a>(&self, tasks: impl Iterator<Item = &'a TaskState>) -> Result<()> {
        if listed(&self.folder)?.len() != self.kept.len() {
            return Ok(());
        }
        let tasks: Vec<&Part> = tasks.flat_map(TaskState::parts).collect();
        let named = self.named.keys().chain(tasks.iter().copied());
        let named: HashSet<&str> = named.map(Part::sha256).collect();
        self.parts.keep_only(|name| named.contains(name))
    }

    /// Removes every checkpoint after `path`, the newest first, so that whatever is left was once the whole.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_after(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name();
        for later in listed(&self.folder)?.into_iter().rev() {
            if later.file_name() > name {
                self.remove(&later)?;
            }
        }
        Ok(())
    }

    /// Counts the parts of a checkpoint, and returns those that only the one in its place named.
    fn note(&mut self, path: PathBuf, state: &State) -> Vec<Part> {
        let parts: Vec<Part> = state.parts().cloned().collect();
        for part in &parts {
            *self.named.entry(part.clone()).or_insert(0) += 1;
        }
        let replaced = self.kept.insert(path, (state.is_between_tasks(), parts));
        match replaced {
            Some((_, parts)) => self.forget(&parts),
            None => Vec::new(),
        }
    }

    fn prune(&mut self, written: &Path, keep: usize) -> Result<()> {
        let of_kind = |between: bool| -> Vec<PathBuf> {
            let all = self.kept.iter().filter(|(_, (is, _))| *is == between);
            all.map(|(path, _)| path.clone()).collect()
        };
        let surplus = |mut paths: Vec<PathBuf>, keep: usize| {
            paths.truncate(paths.len().saturating_sub(keep.max(1)));
            paths
        };
        let mut remove = surplus(of_kind(false), NEWEST_KEPT);
        remove.extend(surplus(of_kind(true), keep));
        for path in remove {
            if path != written {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes a checkpoint, and the parts that no other names.
    fn remove(&mut self, path: &Path) -> Result<()> {
        fs::remove_dir_all(path).map_err(|error| Error::Checkpoint {
            path: path.into(),
            reason: error.to_string(),
        })?;
        let Some((_, parts)) = self.kept.remove(path) else {
            return Ok(());
        };
        for part in self.forget(&parts) {
            self.parts.remove(&part)?;
        }
        Ok(())
    }

    /// Takes one mention of each part back and returns those that have none left.
    fn forget(&mut self, parts: &[Part]) -> Vec<Part> {
        let mut unnamed = Vec::new();
        for part in parts {
            if let Some(count) = self.named.get_mut(part) {
                *count -= 1;
                if *count == 0 {
                    self.named.remove(part);
                    unnamed.push(part.clone());
                }
            }
        }
        unnamed
    }
}

/// The newest checkpoint of the run in `run` that `wanted` takes and `read` can make something of, with a warning for each damaged
/// one that was passed over; none where there is none at all.
///
/// # Errors
/// When the directory cannot be listed, when a checkpoint is of another format, or when there are checkpoints and all are damaged.
pub fn newest<T>(
    run: &Path,
    wanted: impl Fn(&State) -> bool,
    read: impl Fn(&Saved) -> Result<T>,
) -> Result<(Option<T>, Vec<String>)> {
    let mut warnings = Vec::new();
    for path in listed(&checkpoints_of(run))?.into_iter().rev() {
        let opened = Saved::open(&path).and_then(|saved| match wanted(&saved.state) {
            true => read(&saved).map(Some),
            false => Ok(None),
        });
        match opened {
            Ok(Some(found)) => return Ok((Some(found), warnings)),
            Ok(None) => {}
            Err(Error::Checkpoint { path, reason }) => {
                let error = Error::Checkpoint { path, reason };
                warnings.push(format!("{error}; the one before it is used"));
            }
            Err(error) => return Err(error),
        }
    }
    match warnings.pop() {
        None => Ok((None, warnings)),
        Some(last) => Err(Error::RunDirectory {
            path: run.into(),
            problem: format!("has no whole checkpoint: {last}")
                .replace("; the one before it is used", ""),
        }),
    }
}

/// Checkpoint directories, oldest first.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::Checkpoint {
                path: directory.into(),
                reason: error.to_string(),
            });
        }
    };
    let is_checkpoint = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let digits = name.and_then(|name| name.strip_prefix("step-"));
        digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(is_checkpoint)
        .collect();
    paths.sort();
    Ok(paths)
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
