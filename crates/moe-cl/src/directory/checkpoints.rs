//! The checkpoints of a run: manifests that are written aside, synced and renamed, and the parts that none of them names any more.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::{Part, Parts, Saved, State, TaskState, Times, checkpoints_of, state::STATE};
use crate::error::{Error, Result};

/// Name of the file that says what the manifest is, twice, so that a bit of it is no loss.
pub(super) const SEAL: &str = "state.seal";

/// Checkpoints in the middle of a task that are kept.
const NEWEST_KEPT: usize = 2;

/// The checkpoints of a run, for the one process that writes them.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    parts: Parts,
    /// How many manifests name each part.
    named: BTreeMap<Part, usize>,
    kept: BTreeMap<PathBuf, Kept>,
}

/// A checkpoint that is kept.
#[derive(Debug)]
struct Kept {
    kind: Kind,
    /// The parts that it names.
    parts: Vec<Part>,
}

/// What a checkpoint is for those who count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In the middle of a task.
    Within,
    /// Between tasks.
    Between,
    /// It was passed over for an older one, since something in it is damaged. It takes no whole one's place, and stays until one of its
    /// name is written, for whoever wants to look.
    Damaged,
}

impl Checkpoints {
    /// Those of the run in `run`, which goes on from the checkpoint `from`: what is newer was passed over, and is damaged somewhere.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn open(run: &Path, from: Option<&Path>) -> Result<Self> {
        let folder = checkpoints_of(run);
        let mut all = Self {
            parts: Parts::of_run(run),
            named: BTreeMap::new(),
            kept: BTreeMap::new(),
            folder,
        };
        let newest = from.and_then(Path::file_name);
        for path in listed(&all.folder)? {
            // One without a readable manifest names nothing.
            if let Ok(saved) = Saved::open(&path) {
                let kind = match path.file_name() > newest {
                    true => Kind::Damaged,
                    false => Kind::of(&saved.state),
                };
                let _ = all.note(path, kind, &saved.state);
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
    pub fn save(&mut self, state: &State, times: &Times, keep: usize) -> Result<PathBuf> {
        let path = self.folder.join(format!("step-{:08}", state.progress.step));
        let refused = |reason: String| Error::Checkpoint {
            path: path.clone(),
            reason,
        };
        let bytes = serde_json::to_vec(state).map_err(|error| refused(error.to_string()))?;
        fs::create_dir_all(&self.folder).map_err(|error| refused(error.to_string()))?;
        moe_core::atomic::replace_dir(&path, |aside| {
            fs::write(aside.join(STATE), &bytes)?;
            fs::write(aside.join(SEAL), seal(&bytes)?)?;
            times.write(aside)
        })
        .map_err(|error| refused(error.to_string()))?;
        for part in self.note(path.clone(), Kind::of(state), state) {
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
    fn note(&mut self, path: PathBuf, kind: Kind, state: &State) -> Vec<Part> {
        let parts: Vec<Part> = state.parts().cloned().collect();
        for part in &parts {
            *self.named.entry(part.clone()).or_insert(0) += 1;
        }
        match self.kept.insert(path, Kept { kind, parts }) {
            Some(replaced) => self.forget(&replaced.parts),
            None => Vec::new(),
        }
    }

    /// Removes what is no longer kept now that `written` is there (see [`Self::save`]), which a killed process may not have come to.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn prune(&mut self, written: &Path, keep: usize) -> Result<()> {
        for (kind, keep) in [(Kind::Within, NEWEST_KEPT), (Kind::Between, keep.max(1))] {
            let of_kind = self.kept.iter().filter(|(_, kept)| kept.kind == kind);
            let mut surplus: Vec<PathBuf> = of_kind.map(|(path, _)| path.clone()).collect();
            surplus.truncate(surplus.len().saturating_sub(keep));
            for path in surplus.iter().filter(|path| *path != written) {
                self.remove(path)?;
            }
        }
        Ok(())
    }

    /// Removes a checkpoint, and the parts that no other names.
    fn remove(&mut self, path: &Path) -> Result<()> {
        moe_core::atomic::remove_dir(path).map_err(|error| Error::Checkpoint {
            path: path.into(),
            reason: error.to_string(),
        })?;
        let Some(Kept { parts, .. }) = self.kept.remove(path) else {
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

impl Kind {
    fn of(state: &State) -> Self {
        match state.is_between_tasks() {
            true => Self::Between,
            false => Self::Within,
        }
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

/// The seal of a manifest.
pub(super) fn seal(manifest: &[u8]) -> serde_json::Result<String> {
    let line = serde_json::to_string(&Part::of(manifest))?;
    Ok(format!("{line}\n{line}\n"))
}
