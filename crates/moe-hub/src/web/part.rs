//! A file while it arrives: what is kept of it for the next attempt, and nobody else's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Result, SourceError};
use crate::file;

/// What has arrived of a file.
///
/// `<name>.part` is locked while it is written, and beside it `<name>.part.etag` says of which file it is a part. A process that finds it
/// locked writes a file of another name, which goes with the process.
pub(super) struct Part {
    file: File,
    kept: Kept,
    /// What the server calls the file that this is a part of, where that is known.
    tag: Option<String>,
}

enum Kept {
    /// For the next process too.
    Named(PathBuf),
    /// For this one alone.
    Own(NamedTempFile),
}

impl Part {
    /// What is kept of the file that is to be `path`, or a new one.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let named = beside(path, ".part");
        let refused = |error: io::Error| SourceError::io("write", &named, &error);
        if let Some(file) = locked(&named).map_err(refused)? {
            let tag = fs::read_to_string(beside(&named, ".etag")).ok();
            return Ok(Self {
                file,
                kept: Kept::Named(named),
                tag,
            });
        }
        let own = file::temporary(&named).map_err(refused)?;
        Ok(Self {
            file: own.reopen().map_err(refused)?,
            kept: Kept::Own(own),
            tag: None,
        })
    }

    /// The bytes that are kept and the tag of what they are a part of; none and no tag where they cannot be gone on with.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn kept(&mut self) -> Result<(u64, Option<String>)> {
        let end = self.file.seek(SeekFrom::End(0));
        let length = end.map_err(|error| self.refused(&error))?;
        // Files of the same weak tag may differ in their bytes.
        let strong = |tag: &&String| !tag.is_empty() && !tag.starts_with("W/");
        match (length, self.tag.as_ref().filter(strong)) {
            (0, _) | (_, None) => Ok((0, None)),
            (length, Some(tag)) => Ok((length, Some(tag.clone()))),
        }
    }

    /// Begins anew, with the first byte of the file that the server calls `tag`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn begin(&mut self, tag: Option<&str>) -> Result<()> {
        // First nothing is kept, then it is a part of something else: at no moment do bytes lie beside another file's tag.
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| self.refused(&error))?;
        if let Kept::Named(named) = &self.kept {
            file::write(&beside(named, ".etag"), tag.unwrap_or_default().as_bytes())?;
        }
        self.tag = tag.map(String::from);
        Ok(())
    }

    /// Adds what has arrived.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| self.refused(&error))
    }

    /// Waits until the disk has it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.refused(&error))
    }

    /// It is whole, and is `path` from now on.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub(super) fn becomes(self, path: &Path) -> Result<()> {
        let moved = match self.kept {
            Kept::Named(named) => {
                // While the part is locked still, so that it is not the next one's tag that goes.
                let _ = fs::remove_file(beside(&named, ".etag"));
                fs::rename(&named, path)
            }
            Kept::Own(own) => own.persist(path).map(drop).map_err(|error| error.error),
        };
        moved.map_err(|error| SourceError::io("move a download to", path, &error))
    }

    /// It did not become whole: what has arrived stays for the next attempt, and nothing where nothing has.
    pub(super) fn leave(self) {
        if let Kept::Named(named) = &self.kept
            && self.file.metadata().is_ok_and(|it| it.len() == 0)
        {
            let _ = fs::remove_file(beside(named, ".etag"));
            let _ = fs::remove_file(named);
        }
    }

    fn refused(&self, error: &io::Error) -> SourceError {
        let path = match &self.kept {
            Kept::Named(named) => named,
            Kept::Own(own) => own.path(),
        };
        SourceError::io("write", path, error)
    }
}

/// `path` with something after its name.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(end);
    path.with_file_name(name)
}

/// The file at `path`, locked; none where somebody else has it, or the disk knows no locks.
fn locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        // Between opening and locking it may have been whole and moved to its place, which nobody may write to.
        if is_at(&file, path) {
            return Ok(Some(file));
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => place(file) == place(there),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}
