//! Files that Git LFS keeps elsewhere: what lies in the folder then says where, in a hundred bytes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const POINTER: &[u8] = b"version https://git-lfs";
/// A pointer is shorter.
const MOST: u64 = 1024;

/// Refuses a file, or a folder with a file, that is a pointer of Git LFS.
pub(super) fn refuse(path: &Path) -> Result<()> {
    let files: Vec<PathBuf> = match path.is_dir() {
        true => {
            let entries = fs::read_dir(path).map_err(Error::io(path))?;
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            paths.collect()
        }
        false => vec![path.into()],
    };
    for file in files {
        let small = fs::metadata(&file).is_ok_and(|it| it.is_file() && it.len() <= MOST);
        if small && fs::read(&file).is_ok_and(|bytes| bytes.starts_with(POINTER)) {
            let message = "a pointer of Git LFS and not the file itself: fetch it with `git lfs pull`, or download the file";
            return Err(Error::file(&file, message));
        }
    }
    Ok(())
}
