//! A file's lines from the last to the first.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

/// Bytes that are read at least at a time.
const BLOCK: u64 = 1 << 16;

/// The whole lines of a file from the last to the first, read in blocks.
pub(super) struct LinesBackwards<'a> {
    file: &'a mut File,
    /// Where the line that was given last begins; at first, where the last whole line ends.
    pub(super) begin: u64,
    /// What has been read of the bytes before `begin`.
    read: Vec<u8>,
}

impl<'a> LinesBackwards<'a> {
    pub(super) fn new(file: &'a mut File) -> io::Result<Self> {
        let begin = file.seek(SeekFrom::End(0))?;
        let mut lines = Self {
            file,
            begin,
            read: Vec::new(),
        };
        // A line is whole only with its end: what follows the last one is torn.
        let torn = lines.last_line()?.len();
        lines.begin -= torn as u64;
        lines.read.truncate(lines.read.len() - torn);
        Ok(lines)
    }

    /// The next line towards the beginning, without its end.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.begin == 0 {
            return Ok(None);
        }
        self.read.pop();
        self.begin -= 1;
        let line = self.last_line()?.to_vec();
        self.begin -= line.len() as u64;
        self.read.truncate(self.read.len() - line.len());
        Ok(Some(line))
    }

    /// What stands before `begin` and after the line end before that.
    fn last_line(&mut self) -> io::Result<&[u8]> {
        let unread = |lines: &Self| lines.begin - lines.read.len() as u64;
        while !self.read.contains(&b'\n') && unread(self) > 0 {
            let block = unread(self).min((self.read.len() as u64).max(BLOCK));
            self.file.seek(SeekFrom::Start(unread(self) - block))?;
            let mut bytes = vec![0; block as usize];
            self.file.read_exact(&mut bytes)?;
            bytes.append(&mut self.read);
            self.read = bytes;
        }
        let end_before = self.read.iter().rposition(|byte| *byte == b'\n');
        Ok(&self.read[end_before.map_or(0, |end| end + 1)..])
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_come_backwards_whole_whatever_the_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let long = "x".repeat(BLOCK as usize * 3 + 7);
        fs::write(&path, format!("first\n{long}\n\nlast\ntorn")).unwrap();
        let mut file = File::open(&path).unwrap();
        let mut lines = LinesBackwards::new(&mut file).unwrap();
        for want in ["last", "", &long, "first"] {
            let line = lines.next().unwrap().unwrap();
            assert!(line == want.as_bytes(), "{} bytes", line.len());
        }
        assert_eq!((lines.next().unwrap(), lines.begin), (None, 0));
    }
}
