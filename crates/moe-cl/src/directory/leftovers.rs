//! What a killed process leaves beside what it was writing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{checkpoints_of, state::STATE};
use crate::error::{Error, Result};

/// Files of a run's directory that are written aside and renamed.
const WRITTEN_ASIDE: [&str; 4] = ["config.toml", "result.json", "times.json", "report.html"];

/// Removes what was being written into a run's directory when a process was killed. A checkpoint that was being replaced is put back.
///
/// # Errors
/// When the disk refuses.
pub(super) fn clear(run: &Path) -> Result<()> {
    for path in hidden(run)? {
        let is_ours = |name: &&str| begun(&path, name);
        if WRITTEN_ASIDE.iter().any(is_ours) && path.is_file() {
            refused(&path, fs::remove_file(&path))?;
        }
    }
    for path in hidden(&checkpoints_of(run))? {
        if !begun(&path, "step-") || !path.is_dir() {
            continue;
        }
        // Between the two renames of a replacement, and only there, the old checkpoint is here.
        let old = path.join("old");
        let place = place(&path).filter(|place| !place.exists());
        if let Some(place) = place.filter(|_| old.join(STATE).is_file()) {
            refused(&old, fs::rename(&old, place))?;
        }
        refused(&path, fs::remove_dir_all(&path))?;
    }
    Ok(())
}

/// Whether it is the temporary of a file or folder whose name begins so: `.name.random`.
fn begun(path: &Path, name: &str) -> bool {
    let own = path.file_name().and_then(|own| own.to_str());
    own.and_then(|own| own.strip_prefix('.'))
        .is_some_and(|own| own.starts_with(name))
}

/// The name that a temporary folder was to replace.
fn place(path: &Path) -> Option<PathBuf> {
    let own = path.file_name()?.to_str()?.strip_prefix('.')?;
    let (name, _) = own.rsplit_once('.')?;
    Some(path.with_file_name(name))
}

/// Entries of a folder whose names begin with a dot; none of a folder that is not there.
fn hidden(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => refused(folder, entries)?,
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| begun(path, "")).collect())
}

fn refused<T>(path: &Path, done: io::Result<T>) -> Result<T> {
    done.map_err(|source| Error::File {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_a_replaced_checkpoint_comes_back_and_nothing_else_is_touched() {
        let run = tempfile::tempdir().expect("a folder");
        let run = run.path();
        let write = |name: &str| {
            let path = run.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, name).expect("a file");
        };
        let kept = [
            "config.toml",
            "checkpoints/step-00000001/state.json",
            ".gitignore",
            "checkpoints/.mine/file",
        ];
        let left = [
            ".result.json.a1",
            ".config.toml.b2",
            "checkpoints/.step-00000002.c3/state.json",
            "checkpoints/.step-00000001.d4/old/state.json",
        ];
        kept.iter().chain(&left).for_each(|name| write(name));
        write("checkpoints/.step-00000003.e5/old/state.json");
        clear(run).expect("cleared");
        clear(run).expect("nothing more to clear");
        for name in kept {
            assert!(run.join(name).is_file(), "{name}");
        }
        for name in left {
            assert!(!run.join(name).exists(), "{name}");
        }
        let back = run.join("checkpoints/step-00000003/state.json");
        assert!(back.is_file(), "the only copy of a checkpoint");
        assert_eq!(hidden(&checkpoints_of(run)).expect("listed").len(), 1);
    }

    #[test]
    fn a_run_that_is_not_there_has_none() {
        let run = tempfile::tempdir().expect("a folder");
        clear(&run.path().join("none")).expect("nothing");
    }
}
