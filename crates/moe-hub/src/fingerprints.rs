//! Fingerprints of bases, kept so that gigabytes are hashed once and a base is found again by what it is.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::weights;

/// What fingerprint each base had, and by which files.
///
/// A fingerprint is whatever text the caller computes of a base's weights, always by the same rule. It is kept in the cache, in
/// `fingerprints.json`, with what identifies the files: it holds while these stay as they are. Nothing here fails: where the
/// cache cannot be read or written, fingerprints are computed anew, and [`Cache::failure`] says why.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    cache: Cache,
    path: PathBuf,
}

/// A base whose fingerprint is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Folder or file, as an absolute path.
    base: PathBuf,
    files: Vec<Identity>,
    fingerprint: String,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// Canonical.
    path: PathBuf,
    length: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    /// On Unix.
    inode: Option<u64>,
}

impl Fingerprints {
    /// Those kept in `cache`.
    pub fn open(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            path: cache.root().join("fingerprints.json"),
        }
    }

    /// The fingerprint of the base at `path`, a Hugging Face folder or a `.gguf` file: the one that is known of its weight files
    /// as they are now, else what `compute` says.
    ///
    /// # Errors
    /// Those of `compute`.
    pub fn of<E>(
        &self,
        path: &Path,
        compute: impl FnOnce() -> Result<String, E>,
    ) -> Result<String, E> {
        let before = identities(path).ok();
        let known = before.as_ref().and_then(|files| {
            let known = self.read();
            known.into_iter().find(|known| known.files == *files)
        });
        if let Some(known) = known {
            return Ok(known.fingerprint);
        }
        let fingerprint = compute()?;
        // Files that changed meanwhile were not what was hashed.
        if let (Some(files), Ok(base)) = (before, std::path::absolute(path))
            && identities(path).is_ok_and(|after| after == files)
        {
            self.keep(Known {
                base,
                files,
                fingerprint: fingerprint.clone(),
            });
        }
        Ok(fingerprint)
    }

    /// Where bases of this fingerprint are: those known to have had it whose files are still the same.
    pub fn locate(&self, fingerprint: &str) -> Vec<PathBuf> {
        let same = |known: &Known| known.fingerprint == fingerprint && known.holds();
        let known = self.read().into_iter().filter(same);
        known.map(|known| known.base).collect()
    }

    /// Everything that is kept; nothing where the file is missing or damaged.
    fn read(&self) -> Vec<Known> {
        let bytes = fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Adds `new`, and forgets what holds no more. What cannot be written is not kept.
    fn keep(&self, new: Known) {
        let mut all = self.read();
        all.retain(|known| known.base != new.base && known.holds());
        all.push(new);
        if let Ok(json) = serde_json::to_vec_pretty(&all) {
            self.cache.keep(&self.path, &json);
        }
    }
}

impl Known {
    /// Whether the files are as they were.
    fn holds(&self) -> bool {
        identities(&self.base).is_ok_and(|files| files == self.files)
    }
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let metadata = fs::metadata(&path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
        let nanoseconds = modified.map_err(io::Error::other)?.as_nanos();
        Ok(Self {
            length: metadata.len(),
            modified: u64::try_from(nanoseconds).map_err(io::Error::other)?,
            inode: inode(&metadata),
            path,
        })
    }
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(metadata))
}

#[cfg(not(unix))]
fn inode(_metadata: &fs::Metadata) -> Option<u64> {
    None
}

/// The identities of the weight files of the base at `path`, at least one.
fn identities(path: &Path) -> io::Result<Vec<Identity>> {
    let files = weights::files(path).map_err(io::Error::other)?;
    if files.is_empty() {
        return Err(io::Error::other("no weights"));
    }
    files.iter().map(|file| Identity::of(file)).collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// The fingerprint of `base`, and whether it was computed.
    fn ask(kept: &Fingerprints, base: &Path, answer: &str) -> (String, bool) {
        let mut computed = false;
        let fingerprint = kept.of(base, || {
            computed = true;
            Ok::<_, Infallible>(answer.to_string())
        });
        (fingerprint.unwrap(), computed)
    }

    /// A folder with two shards and their index.
    fn base(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let index = r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
        fs::write(folder.join("1.safetensors"), "one").unwrap();
        fs::write(folder.join("2.safetensors"), "two").unwrap();
    }

    #[test]
    fn a_base_is_hashed_once_and_again_when_a_file_changed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        let (kept, folder) = (Fingerprints::open(&cache), dir.path().join("base"));
        base(&folder);
        assert_eq!(ask(&kept, &folder, "x"), ("x".into(), true));
        let again = Fingerprints::open(&cache);
        assert_eq!(ask(&again, &folder, "y"), ("x".into(), false));
        fs::write(folder.join("tokenizer.json"), "{}").unwrap();
        assert_eq!(ask(&kept, &folder, "y"), ("x".into(), false));
        fs::write(folder.join("2.safetensors"), "other").unwrap();
        assert_eq!(ask(&kept, &folder, "y"), ("y".into(), true));
    }

    #[test]
    fn a_base_is_found_by_its_fingerprint_while_its_files_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Fingerprints::open(&Cache::at(dir.path().join("cache")));
        let (one, two) = (dir.path().join("one"), dir.path().join("two.gguf"));
        base(&one);
        fs::write(&two, "GGUF").unwrap();
        for path in [&one, &two] {
            ask(&kept, path, "x");
        }
        assert_eq!(kept.locate("x"), [one.clone(), two.clone()]);
        assert!(kept.locate("y").is_empty());
        fs::remove_file(&two).unwrap();
        assert_eq!(kept.locate("x"), std::slice::from_ref(&one));
        fs::write(one.join("1.safetensors"), "changed").unwrap();
        assert!(kept.locate("x").is_empty());
    }

    #[test]
    fn a_failed_computation_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Fingerprints::open(&Cache::at(dir.path().join("cache")));
        let folder = dir.path().join("base");
        base(&folder);
        let failed = kept.of(&folder, || Err("unreadable"));
        assert_eq!(failed, Err("unreadable"));
        assert_eq!(ask(&kept, &folder, "x"), ("x".into(), true));
    }

    #[test]
    fn a_damaged_record_and_a_cache_that_cannot_be_written_cost_time_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        let (kept, folder) = (Fingerprints::open(&cache), dir.path().join("base"));
        base(&folder);
        ask(&kept, &folder, "x");
        fs::write(cache.root().join("fingerprints.json"), "[{").unwrap();
        assert_eq!(ask(&kept, &folder, "x"), ("x".into(), true));
        assert_eq!(ask(&kept, &folder, "x"), ("x".into(), false));

        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let cache = Cache::at(file.join("cache"));
        let nowhere = Fingerprints::open(&cache);
        for _ in 0..2 {
            assert_eq!(ask(&nowhere, &folder, "x"), ("x".into(), true));
        }
        let failure = cache.failure().unwrap().to_string();
        assert!(failure.contains("file/cache"), "{failure}");
        assert_eq!(
            ask(&kept, &dir.path().join("none"), "z"),
            ("z".into(), true)
        );
    }
}
