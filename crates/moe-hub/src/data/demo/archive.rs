//! The ratings out of the source distribution: a `.tar.gz` inside a `.tar.gz`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Result, SourceError};
use crate::tarball;

const INNER: &str = "additional_resources/hutto_ICWSM_2014.tar.gz";
/// The files have 1.4 MB at most; more than this together is not what we look for.
const MAX_BYTES: u64 = 64 << 20;

/// The contents of `names`, in that order.
///
/// # Errors
/// When the archive cannot be read or lacks one of them.
pub(super) fn read_ratings(archive: &Path, names: &[&str]) -> Result<Vec<Vec<u8>>> {
    let unreadable = |error: io::Error| SourceError::io("read", archive, &error);
    let file = File::open(archive).map_err(unreadable)?;
    let inner = members(file, &[INNER]).map_err(unreadable)?;
    members(inner[0].as_slice(), names)
        .map_err(|error| SourceError::io("read", &archive.join(INNER), &error))
}

/// The contents of the members of a `.tar.gz` whose paths end in `names`.
fn members(archive: impl Read, names: &[&str]) -> io::Result<Vec<Vec<u8>>> {
    let is = |path: &str, name: &str| Path::new(path).ends_with(name);
    let files = tarball::files(archive, MAX_BYTES, |path| {
        names.iter().any(|name| is(path, name))
    })?;
    let member = |name: &&str| {
        let found = files.iter().find(|(path, _)| is(path, name));
        let missing = || io::Error::other(format!("it holds no {name}"));
        found.map(|(_, bytes)| bytes.clone()).ok_or_else(missing)
    };
    names.iter().map(member).collect()
}
