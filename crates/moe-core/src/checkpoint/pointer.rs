//! Files that Git LFS keeps elsewhere: what lies in the folder then says where, in a hundred bytes.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

const POINTER: &[u8] = b"version https://git-lfs";
/// A pointer is shorter.
const MOST: u64 = 1024;

/// Refuses a file that is a pointer of Git LFS. It is asked where a file is about to be read, so that pointers to what nothing reads
/// (weights in another format, pictures) hinder nobody.
pub(crate) fn refuse(file: &Path) -> Result<()> {
    let small = fs::metadata(file).is_ok_and(|it| it.is_file() && it.len() <= MOST);
    if small && fs::read(file).is_ok_and(|bytes| bytes.starts_with(POINTER)) {
        let message = "a pointer of Git LFS and not the file itself: fetch it with `git lfs pull`, or download the file";
        return Err(Error::file(file, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_refused_by_its_name_and_a_short_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        fs::write(
            &file,
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        )
        .unwrap();
        let message = refuse(&file).unwrap_err().to_string();
        assert!(
            message.contains("model.safetensors") && message.contains("git lfs pull"),
            "{message}"
        );
        for text in ["", "version", "{}"] {
            fs::write(&file, text).unwrap();
            refuse(&file).unwrap();
        }
        // A long file that begins so is a text about pointers.
        fs::write(
            &file,
            format!("version https://git-lfs{}", " ".repeat(2000)),
        )
        .unwrap();
        refuse(&file).unwrap();
    }
}
