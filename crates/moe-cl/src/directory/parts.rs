//! Parts: files named by the hash of their content, in which a flipped bit is mended.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::parity::Parity;
use crate::error::{Error, Result};

/// A stored part: what a manifest says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// SHA-256 of its content.
    sha256: Hash,
    /// Its length.
    pub bytes: u64,
    /// Tells which bit it is where one is flipped.
    parity: Parity,
}

/// 64 hexadecimal digits: nothing else may become a file's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Hash(String);

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.len() == 64 && text.bytes().all(digits) {
            true => Ok(Self(text)),
            false => Err(format!("{text:?} is no SHA-256 in lower-case hexadecimal")),
        }
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.0
    }
}

impl Part {
    /// The part that such content makes.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            sha256: Hash(hex::encode(Sha256::digest(bytes))),
            bytes: bytes.len() as u64,
            parity: Parity::of(bytes),
        }
    }

    /// The content that `bytes` are, or were before one bit was flipped; none where they are anything else.
    pub(super) fn mend(&self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let is_whole = |bytes: &[u8]| Self::of(bytes) == *self;
        let whole = is_whole(&bytes) || self.parity.mend(&mut bytes) && is_whole(&bytes);
        whole.then_some(bytes)
    }

    /// SHA-256 of its content, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256.0
    }
}

/// The parts of a run.
#[derive(Clone, Debug)]
pub struct Parts {
    folder: PathBuf,
    /// Whether a bit that is mended is mended on the disk too: readers write nothing.
    mends: bool,
}

impl Parts {
    /// Those of the run in `run`.
    pub fn of_run(run: &Path) -> Self {
        Self {
            folder: run.join("parts"),
            mends: false,
        }
    }

    /// The same, for the one process that writes: a bit that is mended is mended on the disk.
    pub fn mending(self) -> Self {
        Self {
            mends: true,
            ..self
        }
    }

    /// Writes a part, unless a whole one of that content is there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<Part> {
        let part = Part::of(bytes);
        let path = self.path(&part);
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(part);
        }
        let write = || {
            fs::create_dir_all(&self.folder)?;
            moe_core::atomic::write_file(&path, bytes)
        };
        write().map_err(|source| Error::File {
            path: path.clone(),
            source,
        })?;
        Ok(part)
    }

    /// The content of a part.
    ///
    /// # Errors
    /// When it is not there, or more than a bit is not what was written.
    pub fn get(&self, part: &Part) -> Result<Vec<u8>> {
        let path = self.path(part);
        let damaged = |reason: String| Error::Checkpoint {
            path: path.clone(),
            reason,
        };
        self.check(part)?;
        let bytes = fs::read(&path).map_err(|error| damaged(error.to_string()))?;
        if Part::of(&bytes) == *part {
            return Ok(bytes);
        }
        let mended = part
            .mend(bytes)
            .ok_or_else(|| damaged("the content does not match its recorded hash".into()))?;
        if self.mends {
            moe_core::atomic::write_file(&path, &mended)
                .map_err(|source| Error::File { path, source })?;
        }
        Ok(mended)
    }

    /// Whether a part of that length is there; its content is checked when it is read.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, part: &Part) -> Result<()> {
        let path = self.path(part);
        let length = fs::metadata(&path).map(|file| file.len());
        let reason = match length {
            Ok(length) if length == part.bytes => return Ok(()),
            Ok(length) => format!("{length} bytes, {} were written", part.bytes),
            Err(error) => error.to_string(),
        };
        Err(Error::Checkpoint { path, reason })
    }

    /// Removes a part, where it is there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, part: &Part) -> Result<()> {
        let path = self.path(part);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Removes every file whose name is not wanted, temporary ones of a killed process included.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_only(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let refused = |source| Error::File {
            path: self.folder.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(refused(source)),
        };
        for entry in entries {
            let entry = entry.map_err(refused)?;
            if !entry.file_name().to_str().is_some_and(&wanted) {
                fs::remove_file(entry.path()).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn path(&self, part: &Part) -> PathBuf {
        self.folder.join(part.sha256())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_written_once_and_found_out_when_it_is_damaged() {
        let run = tempfile::tempdir().expect("a folder");
        let parts = Parts::of_run(run.path());
        let part = parts.put(b"weights").expect("written");
        assert_eq!(parts.get(&part).expect("read"), b"weights");
        let path = parts.path(&part);
        fs::write(&path, b"weightS").expect("a flipped bit");
        // A bit is mended, on the disk where that is wanted.
        assert_eq!(parts.get(&part).expect("mended"), b"weights");
        assert_eq!(fs::read(&path).expect("there"), b"weightS");
        let mending = parts.clone().mending();
        assert_eq!(mending.get(&part).expect("mended"), b"weights");
        assert_eq!(fs::read(&path).expect("there"), b"weights");
        fs::write(&path, b"WeightS").expect("two flipped bits");
        assert!(parts.check(&part).is_ok() && parts.get(&part).is_err());
        // What is damaged is written anew.
        assert_eq!(parts.put(b"weights").expect("written again"), part);
        assert_eq!(parts.get(&part).expect("read"), b"weights");
        fs::write(&path, b"weigh").expect("a torn file");
        assert!(parts.check(&part).is_err());
        parts.remove(&part).expect("removed");
        parts.remove(&part).expect("nothing to remove");
        assert!(parts.get(&part).is_err());
    }

    #[test]
    fn a_hash_names_no_other_file() {
        for name in ["../../etc/passwd", "", &"A".repeat(64), &"a".repeat(63)] {
            let json = format!("{{\"sha256\": {name:?}, \"bytes\": 1}}");
            assert!(serde_json::from_str::<Part>(&json).is_err(), "{name}");
        }
    }
}
