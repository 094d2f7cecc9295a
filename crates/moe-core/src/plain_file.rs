//! Opening what is a plain file, and nothing else: a device has no end, a pipe may never answer.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Opens a plain file, or a link to one.
///
/// # Errors
/// It cannot be opened, or is a folder, device, pipe or socket.
pub fn open(path: &Path) -> io::Result<File> {
    // Before it is opened, since opening a pipe waits for its writer.
    check(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

/// The whole of a plain file of at most `most` bytes.
///
/// # Errors
/// As [`open`], or it is longer.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let len = file.metadata()?.len();
    let refuse = |len| io::Error::new(io::ErrorKind::InvalidData, too_long(len, most));
    if len > most {
        return Err(refuse(len));
    }
    // It may grow meanwhile, and files of /proc say that they are empty.
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(refuse(bytes.len() as u64)),
        false => Ok(bytes),
    }
}

fn too_long(len: u64, most: u64) -> String {
    format!("{len} bytes; expected a file of at most {most}")
}

fn check(metadata: &fs::Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected a plain file, found a folder, device, pipe or socket",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"abc").unwrap();
        assert_eq!(read(file.path(), 3).unwrap(), b"abc");
        let message = read(file.path(), 2).unwrap_err().to_string();
        assert!(message.contains("at most 2"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_plain_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [Path::new("/dev/zero"), &pipe, folder.path()] {
            let message = read(path, u64::MAX).unwrap_err().to_string();
            assert!(message.contains("plain file"), "{message}");
        }
    }
}
