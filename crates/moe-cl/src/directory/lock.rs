//! One writer per directory.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

use super::leftovers;
use crate::error::{Error, Result};

/// The right to write into a run's directory, given back when dropped.
///
/// The operating system holds it for the open file, and lets go of it when the process ends, however it ends: what a killed process
/// leaves behind is a file that nobody holds.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes it for the run in `run`, and removes what a killed process was writing there.
    ///
    /// # Errors
    /// When another process has it, which is named, or the file cannot be written.
    pub fn take(run: &Path) -> Result<Self> {
        let path = run.join("lock");
        let refused = |source: io::Error| Error::File {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(run).map_err(refused)?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let mut file = file.map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(run, &path)),
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        let mut write = || {
            file.set_len(0)?;
            write!(file, "{} on {}", process::id(), host())?;
            file.flush()
        };
        write().map_err(refused)?;
        leftovers::clear(run)?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays, empty: removing it would let a third process lock another file of that name.
        let _ = self.file.set_len(0);
    }
}

fn taken(run: &Path, path: &PathBuf) -> Error {
    let holder = fs::read_to_string(path).unwrap_or_default();
    let holder = match holder.trim() {
        "" => "another process".to_owned(),
        holder => format!("process {holder}"),
    };
    Error::RunDirectory {
        path: run.into(),
        problem: format!("is being written by {holder}; wait until it is done, or stop it"),
    }
}

/// Name of this machine.
fn host() -> String {
    let named = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = named.or_else(|| std::env::var("HOSTNAME").ok());
    let named = named.or_else(|| std::env::var("COMPUTERNAME").ok());
    named.map_or_else(|| "this machine".into(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_the_name_of_the_first_and_a_stale_file_is_no_lock() {
        let run = tempfile::tempdir().expect("a folder");
        fs::write(run.path().join("lock"), "1 on another machine").expect("left by a kill");
        let first = Lock::take(run.path()).expect("nobody holds it");
        let error = Lock::take(run.path()).expect_err("the first holds it");
        assert!(error.to_string().contains(&process::id().to_string()));
        drop(first);
        Lock::take(run.path()).expect("given back");
    }
}
