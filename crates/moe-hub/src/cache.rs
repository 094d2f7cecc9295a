//! The folder where fetched models and data are kept, and the check of what lies there.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::error::{Result, SourceError};
use crate::file;

/// Name of the environment variable that moves the cache.
pub const CACHE_VARIABLE: &str = "MOE_CL_CACHE";

/// A folder of fetched files:
/// ```text
/// downloads/            archives as pip leaves them; an archive put here by hand is used as if it had been downloaded
/// data/                 the files of suites of tasks
/// fingerprints.json     what fingerprint each base had, and by which files
/// pypi/<name>-<version>/<path inside the archive>
/// trunks/<fingerprint>/ states of texts after the frozen layers below the first expert
/// verified/<sha256>     which file was last found to have that hash (length, time, path), so that it is hashed once
/// ```
/// Files appear under their final name only when they are complete. What merely saves time (`fingerprints.json`, `verified/`, which
/// commit a branch stood for) need not be written: where the folder cannot be, [`Cache::failure`] says so, and the work goes on.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    /// Why something is not kept, of this and all clones of it.
    failure: Arc<OnceLock<SourceError>>,
}

impl Cache {
    /// The cache that `MOE_CL_CACHE` names, else the platform's cache folder for `moe-cl` (on Linux `~/.cache/moe-cl`).
    ///
    /// # Errors
    /// When the variable is not set and the platform tells no home folder.
    pub fn open() -> Result<Self> {
        if let Some(root) = std::env::var_os(CACHE_VARIABLE).filter(|root| !root.is_empty()) {
            return Ok(Self::at(PathBuf::from(root)));
        }
        directories::ProjectDirs::from("", "", "moe-cl")
            .map(|dirs| Self::at(dirs.cache_dir().to_path_buf()))
            .ok_or_else(|| {
                SourceError::new("there is no home folder to keep downloaded models in").with_hint(
                    format!("set {CACHE_VARIABLE} to a folder that can be written"),
                )
            })
    }

    /// A cache in the folder `root`, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            failure: Arc::default(),
        }
    }

    /// Why what merely saves time is not kept, where that is so. It is for whoever talks to people to say it, once.
    pub fn failure(&self) -> Option<&SourceError> {
        self.failure.get()
    }

    /// Writes what merely saves time. The first failure is remembered.
    pub(crate) fn keep(&self, path: &Path, bytes: &[u8]) {
        if let Err(error) = file::write(path, bytes) {
            let _ = self.failure.set(SourceError::new(format!(
                "the cache is not written, and what it would keep is found out anew each time: {error}"
            )).with_hint(format!("{CACHE_VARIABLE} names another folder")));
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder for what the frozen layers of bases make of texts.
    pub fn trunks(&self) -> PathBuf {
        self.root.join("trunks")
    }

    /// The folder with the files of suites of tasks, below which the files of experiments are that name a suite.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The folder for archives as they are downloaded; the user may put one there by hand.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Whether the file at `path` has this hash (hexadecimal). The answer yes is remembered until the file's length or time changes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_sha256(&self, path: &Path, sha256: &str) -> Result<bool> {
        let stamp = stamp(path).map_err(|error| SourceError::io("read", path, &error))?;
        let record = self.root.join("verified").join(sha256);
        if std::fs::read_to_string(&record).is_ok_and(|known| known == stamp) {
            return Ok(true);
        }
        let found = sha256_of(path).map_err(|error| SourceError::io("read", path, &error))?;
        if found != sha256 {
            return Ok(false);
        }
        self.keep(&record, stamp.as_bytes());
        Ok(true)
    }
}

/// Length, modification time and path: what tells whether a file may have changed.
fn stamp(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    let nanoseconds = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    Ok(format!(
        "{} {nanoseconds} {}",
        metadata.len(),
        path.display()
    ))
}

/// SHA-256 of a file, in lower-case hexadecimal.
fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // printf abc | sha256sum
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_changed_file_loses_its_verified_hash() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        let file = dir.path().join("model");
        std::fs::write(&file, "abc").unwrap();
        assert!(cache.has_sha256(&file, ABC).unwrap());
        assert!(cache.root().join("verified").join(ABC).is_file());
        assert!(cache.has_sha256(&file, ABC).unwrap());
        std::fs::write(&file, "abcd").unwrap();
        assert!(!cache.has_sha256(&file, ABC).unwrap());
    }

    #[test]
    fn a_cache_that_cannot_be_written_answers_all_the_same_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "abc").unwrap();
        // Below a file there is no folder, whoever asks.
        let cache = Cache::at(file.join("cache"));
        assert!(cache.failure().is_none());
        assert!(cache.clone().has_sha256(&file, ABC).unwrap());
        let failure = cache.failure().unwrap().to_string();
        assert!(failure.contains("file/cache"), "{failure}");
        assert!(cache.has_sha256(&file, ABC).unwrap());
    }
}
