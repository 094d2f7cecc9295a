//! The checkpoints of a run: manifests that are written aside, synced and renamed, and the parts that none of them names any more.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{Part, Parts, Saved, State, TaskState, checkpoints_of, state::STATE};
use crate::error::{Error, Result};

/// Name of the file with the manifest's hash.
pub(super) const HASH: &str = "state.sha256";

/// Checkpoints in the middle of a task that are kept.
const NEWEST_KEPT: usize = 2;

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

/// Checkpoint directories, oldest first.
pub(super) fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
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

pub(super) fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
