//! Suites of tasks from the public hubs: fetched, checked and made into `train`, `dev` and `test`.

mod branch;
mod manifest;
mod origin;
mod records;
mod split;

use std::fmt;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Result, SourceError};
use crate::file;
use crate::progress::Progress;

pub use branch::Sources;
pub use manifest::{Format, Manifest, Read, Split, Task};
pub use origin::{GITHUB_VARIABLE, Origins};

/// How the files of a task stand to what the manifest says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// They were there already, with the manifest's hashes.
    There,
    /// They were made, with the manifest's hashes.
    Same,
    /// They were made by the rule; the manifest's own are others, or it knows no hashes.
    ByRule,
    /// They were made of the manifest's rows and yet are not the same.
    Differ,
}

/// What became of a task.
#[derive(Debug)]
pub struct Made {
    /// Its name.
    pub task: String,
    /// Lines of train, dev and test.
    pub rows: [usize; 3],
    /// Whether they are the manifest's files.
    pub provenance: Provenance,
    /// Under which terms the texts stand.
    pub licence: String,
}

/// Makes the files of `task` below `root`. Texts are fetched only where files with the manifest's hashes are not there yet.
/// With `resample` the rule splits, whatever rows the manifest names.
///
/// # Errors
/// When a source cannot be had or read, or a file not be written.
pub fn make(
    manifest: &Manifest,
    task: &Task,
    root: &Path,
    resample: bool,
    sources: &Sources<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Made> {
    let made = |rows, provenance| Made {
        task: task.name.clone(),
        rows,
        provenance,
        licence: task.licence.clone(),
    };
    if let Some(rows) = there(task, root) {
        return Ok(made(rows, Provenance::There));
    }
    let files = origin::fetch(task, sources, progress)?;
    let lines = records::read(task, &files)?;
    let chosen = manifest.chosen.as_ref().filter(|_| !resample);
    let contents = match chosen {
        Some(chosen) => {
            let rows = chosen
                .get(&task.name)
                .ok_or_else(|| SourceError::new(format!("no rows are named for {}", task.name)))?;
            split::by_rows(task, &lines, rows)?
        }
        None => split::by_rule(task, &lines, manifest.seed),
    };
    let mut same = true;
    for ((_, split), content) in task.splits().into_iter().zip(&contents) {
        file::write(&root.join(&split.file), content.as_bytes())?;
        same &= split.is(content.as_bytes());
    }
    let provenance = match (same, chosen) {
        (true, _) => Provenance::Same,
        (false, None) => Provenance::ByRule,
        (false, Some(_)) => Provenance::Differ,
    };
    Ok(made(
        contents.map(|content| content.lines().count()),
        provenance,
    ))
}

/// The rows of the files below `root`, where they are those of the manifest.
fn there(task: &Task, root: &Path) -> Option<[usize; 3]> {
    let splits = task.splits();
    let is_same = splits.iter().all(|(_, split)| {
        let bytes = fs::read(root.join(&split.file)).ok();
        bytes.is_some_and(|bytes| split.is(&bytes))
    });
    is_same.then(|| splits.map(|(_, split)| split.rows))
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            task,
            rows,
            licence,
            ..
        } = self;
        let [train, dev, test] = rows;
        let provenance = match self.provenance {
            Provenance::There => "already there, as the manifest says (SHA-256)",
            Provenance::Same => "made, as the manifest says (SHA-256)",
            Provenance::ByRule => {
                "made by the rule of datasets/README.md: NOT the files that docs/RESULTS.md speaks of"
            }
            Provenance::Differ => {
                "made of the manifest's rows, but the SHA-256 DIFFERS: not the files that docs/RESULTS.md speaks of"
            }
        };
        write!(
            f,
            "{task}: train {train}, dev {dev}, test {test}; {provenance}; licence of the source: {licence}"
        )
    }
}

/// SHA-256 in lower-case hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
