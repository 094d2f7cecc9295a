//! The ratings out of the source distribution: a `.tar.gz` inside a `.tar.gz`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use tar::Archive;

const INNER: &str = "additional_resources/hutto_ICWSM_2014.tar.gz";
/// The largest of the files has 1.4 MB; more than this is not what we look for.
const MAX_BYTES: u64 = 64 << 20;

/// The contents of `names`, in that order.
///
/// # Errors
/// When the archive cannot be read or lacks one of them.
pub(super) fn read_ratings(archive: &Path, names: &[&str]) -> Result<Vec<Vec<u8>>> {
    let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
    let inner =
        members(file, &[INNER]).with_context(|| format!("cannot read {}", archive.display()))?;
    members(inner[0].as_slice(), names)
        .with_context(|| format!("cannot read {INNER} in {}", archive.display()))
}

/// The contents of the members of a `.tar.gz` whose paths end in `names`.
fn members(archive: impl Read, names: &[&str]) -> Result<Vec<Vec<u8>>> {
    let mut found = vec![None; names.len()];
    for entry in Archive::new(GzDecoder::new(archive)).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        if let Some(index) = names.iter().position(|name| path.ends_with(name)) {
            let mut bytes = Vec::new();
            entry.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
            ensure!(
                bytes.len() as u64 <= MAX_BYTES,
                "{} has more than {MAX_BYTES} bytes",
                path.display()
            );
            found[index] = Some(bytes);
        }
    }
    names
        .iter()
        .zip(found)
        .map(|(name, bytes)| bytes.with_context(|| format!("it holds no {name}")))
        .collect()
}
