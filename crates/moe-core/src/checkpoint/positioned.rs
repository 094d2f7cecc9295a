//! Reads at a position of a file, without a cursor: many threads may read one file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::pointer;
use crate::error::{Error, Result};
use crate::plain_file;

/// A file whose length was taken when it was opened.
#[derive(Debug)]
pub(super) struct PositionedFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl PositionedFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        pointer::refuse(path)?;
        let file = plain_file::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            len: metadata.len(),
            file,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads `len` bytes from `offset` on. Allocates only after both are known to lie in the file.
    pub(super) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        let size = usize::try_from(len).ok().filter(|_| inside);
        let Some(size) = size else {
            let message = format!(
                "bytes {offset}..+{len} lie past the end at {}; the file is cut or damaged",
                self.len
            );
            return Err(Error::file(&self.path, message));
        };
        let mut bytes = vec![0; size];
        self.fill(offset, &mut bytes)
            .map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    #[cfg(unix)]
    fn fill(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, offset)
    }

    /// Without positioned reads the cursor is shared, so each read opens the file anew.
    #[cfg(not(unix))]
    fn fill(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = plain_file::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_outside_the_file_are_errors_before_any_allocation() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abcdef").unwrap();
        let file = PositionedFile::open(file.path()).unwrap();
        assert_eq!(file.read(2, 3).unwrap(), b"cde");
        assert_eq!(file.read(6, 0).unwrap(), b"");
        assert!(file.read(2, 5).is_err());
        assert!(file.read(u64::MAX, 2).is_err());
        assert!(file.read(0, u64::MAX).is_err());
    }

    #[test]
    fn a_folder_is_not_a_file() {
        assert!(PositionedFile::open(&std::env::temp_dir()).is_err());
    }
}
