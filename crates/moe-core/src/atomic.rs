//! Files and folders that are either the old version or the new one, never a part of it.
//!
//! A crash, a full disk or a kill at any instruction leaves what was there before: new bytes go to
//! a temporary name in the same folder, reach the disk, and only then take the final name.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes `bytes` to `path`, replacing what is there in one step.
///
/// # Errors
/// Any I/O error; the old file is then still in place and the temporary one is removed.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = parent_of(path)?;
    let prefix = temporary_prefix(path);
    let mut file = shared(&prefix, 0o666).tempfile_in(&parent)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_dir(&parent)
}

/// Replaces the folder `path` by one that `fill` writes into a temporary sibling.
///
/// Every file that `fill` leaves is on the disk before the folder takes its name. Where an old
/// folder exists, it is moved aside first and removed last: between the two renames (and only
/// there) a crash leaves the old folder under its temporary name, complete.
///
/// # Errors
/// Any I/O error, or the one `fill` returns; the old folder is then still in place.
pub fn replace_dir(path: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let parent = parent_of(path)?;
    let prefix = temporary_prefix(path);
    let new = shared(&prefix, 0o777).tempdir_in(&parent)?;
    fill(new.path())?;
    sync_tree(new.path())?;
    if fs::symlink_metadata(path).is_ok() {
        let aside = shared(&prefix, 0o777).tempdir_in(&parent)?;
        let old = aside.path().join("old");
        fs::rename(path, &old)?;
        if let Err(error) = fs::rename(new.path(), path) {
            if fs::rename(&old, path).is_err() {
                // Never delete the only complete copy.
                let _ = aside.keep();
            }
            return Err(error);
        }
    } else {
        fs::rename(new.path(), path)?;
    }
    // The temporary folder lives on under its final name.
    let _ = new.keep();
    sync_dir(&parent)
}

/// Removes the folder `path` in one step: it goes aside first, and is taken apart there.
///
/// # Errors
/// Any I/O error; the folder is then whole in its place, or gone from it and left aside.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    let parent = parent_of(path)?;
    let aside = shared(&temporary_prefix(path), 0o777).tempdir_in(&parent)?;
    fs::rename(path, aside.path().join("removed"))?;
    sync_dir(&parent)?;
    aside.close()
}

/// `.name.`, so that a left-over is recognised and never read as the real thing.
fn temporary_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.")
}

fn parent_of(path: &Path) -> io::Result<PathBuf> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(PathBuf::from(".")),
        Some(parent) => Ok(parent.to_path_buf()),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} has no parent folder to write into", path.display()),
        )),
    }
}

/// Temporaries of this prefix with the permissions that the user wants new files and folders to have (umask): they are born private
/// otherwise.
fn shared(prefix: &str, mode: u32) -> tempfile::Builder<'_, '_> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

/// A rename is durable once its folder is.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Other systems give no handle on a folder.
#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_written_file_replaces_the_old_one_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_file(&path, b"old").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["state"]);
    }

    #[test]
    fn a_failed_fill_keeps_the_old_folder_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step");
        replace_dir(&path, |new| fs::write(new.join("a"), "1")).unwrap();
        let failed = replace_dir(&path, |new| {
            fs::write(new.join("b"), "2")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(names(&path), ["a"]);
        assert_eq!(names(dir.path()), ["step"]);
    }

    #[test]
    fn a_filled_folder_replaces_the_old_one_with_all_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step");
        replace_dir(&path, |new| fs::write(new.join("a"), "1")).unwrap();
        replace_dir(&path, |new| {
            fs::create_dir(new.join("inner"))?;
            fs::write(new.join("inner/b"), "2")
        })
        .unwrap();
        assert_eq!(names(&path), ["inner"]);
        assert_eq!(names(dir.path()), ["step"]);
    }

    #[test]
    fn a_removed_folder_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step");
        replace_dir(&path, |new| fs::write(new.join("a"), "1")).unwrap();
        remove_dir(&path).unwrap();
        assert!(names(dir.path()).is_empty());
        assert!(remove_dir(&path).is_err() && names(dir.path()).is_empty());
    }

    #[test]
    fn a_missing_parent_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_file(&dir.path().join("no/such/file"), b"x").is_err());
    }
}
