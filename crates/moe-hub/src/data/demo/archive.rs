//! The ratings out of the source distribution: a `.tar.gz` inside a `.tar.gz`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use tar::Archive;

use crate::error::{Result, SourceError};

const INNER: &str = "additional_resources/hutto_ICWSM_2014.tar.gz";
/// The largest of the files has 1.4 MB; more than this is not what we look for.
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
    let mut found = vec![None; names.len()];
    for entry in Archive::new(GzDecoder::new(archive)).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        if let Some(index) = names.iter().position(|name| path.ends_with(name)) {
            let mut bytes = Vec::new();
            entry.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > MAX_BYTES {
                let path = path.display();
                return Err(io::Error::other(format!(
                    "{path} has more than {MAX_BYTES} bytes"
                )));
            }
            found[index] = Some(bytes);
        }
    }
    names
        .iter()
        .zip(found)
        .map(|(name, bytes)| bytes.ok_or_else(|| io::Error::other(format!("it holds no {name}"))))
        .collect()
}
