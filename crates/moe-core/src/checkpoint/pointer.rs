//! Files that Git LFS keeps elsewhere: what lies in the folder then says where, in a hundred bytes.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

const POINTER: &[u8] = b"version https://git-lfs";
/// A pointer is shorter.
const MOST: u64 = 1024;

/// Refuses a file that is to be read where it is a pointer of Git LFS.
pub(crate) fn refuse(path: &Path) -> Result<()> {
    let small = fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() <= MOST);
    if small && fs::read(path).is_ok_and(|bytes| bytes.starts_with(POINTER)) {
        let message = "a pointer of Git LFS and not the file itself: fetch it with `git lfs pull`, or download the file";
        return Err(Error::file(path, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_refused_by_name_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 269060552\n";
        fs::write(&path, pointer).unwrap();
        let message = refuse(&path).unwrap_err().to_string();
        assert!(message.contains("model.safetensors") && message.contains("git lfs pull"));
        let long = format!("{pointer}{}", " ".repeat(2048));
        for other in ["{}", "", &long] {
            fs::write(&path, other).unwrap();
            assert!(refuse(&path).is_ok());
        }
        assert!(refuse(dir.path()).is_ok());
        assert!(refuse(&dir.path().join("absent")).is_ok());
    }
}
