//! What has arrived of a file: one writer at a time, gone on with by the next.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The beginning of a file, which this process alone writes to.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
}

/// Tries to hold what another process may just be finishing.
const TRIES: usize = 3;

impl Part {
    /// What has arrived of the file `target`, as `target.part` beside it. While another process writes to that, a new and empty one of
    /// its own name.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn claim(target: &Path) -> io::Result<Self> {
        let path = beside(target, ".part");
        for _ in 0..TRIES {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            // The one before may have finished and renamed it since it was opened.
            if file.try_lock().is_ok() && is_still(&file, &path) {
                return Ok(Self { path, file });
            }
        }
        let path = beside(target, &format!(".{}.part", std::process::id()));
        let file = File::create(&path)?;
        Ok(Self { path, file })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that have arrived.
    pub(super) fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// What the server said of the version that they are of; none where it said nothing that can be relied on.
    pub(super) fn etag(&self) -> Option<String> {
        let etag = fs::read_to_string(self.etag_path()).ok()?;
        (!etag.is_empty()).then_some(etag)
    }

    /// Begins anew, with the version `etag`.
    pub(super) fn begin(&mut self, etag: Option<&str>) -> io::Result<()> {
        self.file.set_len(0)?;
        match etag {
            Some(etag) => fs::write(self.etag_path(), etag),
            None => match fs::remove_file(self.etag_path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Takes in what came next.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.file, bytes)
    }

    /// Puts it to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// It is whole: from here on it is the file `target`.
    pub(super) fn finish(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        // What is left of it says nothing of any file.
        let _ = fs::remove_file(self.etag_path());
        Ok(())
    }

    fn etag_path(&self) -> PathBuf {
        beside(&self.path, ".etag")
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(end);
    path.with_file_name(name)
}

/// Whether what is open is what lies there.
#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ids = |metadata: io::Result<fs::Metadata>| {
        Some((metadata.as_ref().ok()?.dev(), metadata.as_ref().ok()?.ino()))
    };
    ids(file.metadata()) == ids(fs::metadata(path))
}

/// Whether something lies there: a file that is open keeps its name on other systems.
#[cfg(not(unix))]
fn is_still(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writers_have_two_parts_and_the_next_goes_on_with_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let mut first = Part::claim(&target).unwrap();
        first.begin(Some("\"v1\"")).unwrap();
        first.write(b"ab").unwrap();
        let mut second = Part::claim(&target).unwrap();
        assert_eq!((second.len(), second.etag()), (0, None));
        second.write(b"whole").unwrap();
        second.finish(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        drop(first);
        let third = Part::claim(&target).unwrap();
        assert_eq!((third.len(), third.etag().as_deref()), (2, Some("\"v1\"")));
        third.finish(&target).unwrap();
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing is left beside the file");
    }
}
