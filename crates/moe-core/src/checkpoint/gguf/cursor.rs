//! A forward reader over the head of a GGUF file that knows how many bytes are left.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::plain_file;

/// Little-endian values from the start of a file on.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    position: u64,
    len: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let file = plain_file::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(Self {
            path,
            reader: BufReader::with_capacity(1 << 16, file),
            position: 0,
            len,
        })
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn remaining(&self) -> u64 {
        self.len - self.position
    }

    /// An error about what stands at the current position.
    pub(super) fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::file(self.path, format!("at byte {}: {message}", self.position))
    }

    /// A count of items of at least `min_bytes` each, refused when the file cannot hold them.
    pub(super) fn count(&mut self, what: &str, min_bytes: u64) -> Result<usize> {
        let count = self.u64()?;
        if count > self.remaining() / min_bytes {
            return Err(self.error(format_args!(
                "{count} {what} cannot fit the {} bytes left; the file is cut or damaged",
                self.remaining()
            )));
        }
        usize::try_from(count).map_err(|_| self.error(format_args!("{count} {what} overflow")))
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// `len` bytes; the caller has checked `len` against [`Cursor::remaining`].
    pub(super) fn vec(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        if bytes.len() as u64 > self.remaining() {
            return Err(self.error("the file ends inside its header; it is cut or damaged"));
        }
        self.reader
            .read_exact(bytes)
            .map_err(Error::io(self.path))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A length and that many bytes of UTF-8.
    pub(super) fn string(&mut self) -> Result<String> {
        let len = self.count("bytes of a string", 1)?;
        let bytes = self.vec(len)?;
        String::from_utf8(bytes).map_err(|_| self.error("a string is not UTF-8"))
    }
}
