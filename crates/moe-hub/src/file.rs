//! Files that appear under their name only when they are whole.

use std::fs;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Result, SourceError};

/// Writes `bytes` to `path`, in a folder that is made where it is missing; what is there is replaced in one step.
///
/// # Errors
/// When the disk refuses; an older file is then still in place.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    make_parent(path)?;
    let written = || -> std::io::Result<()> {
        let mut file = temporary(path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|error| SourceError::io("write", path, &error))
}

/// Creates the folder that `path` lies in.
pub(crate) fn make_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    fs::create_dir_all(parent).map_err(|error| SourceError::io("create", parent, &error))
}

/// A file beside `path` with a name of its own, readable as the user wants new files to be (umask): temporary files are private otherwise.
pub(crate) fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let mut prefix = path.file_name().unwrap_or_default().to_os_string();
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_replaces_the_old_one_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/file");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1);
    }
}
