//! Which files hold the weights of a base.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::base::is_inside;
use crate::error::{Result, SourceError};

/// The one weight file of a model that is not in shards.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The file that tells in which shard a tensor lies.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards that an index names, which lie in its folder.
///
/// # Errors
/// When the file cannot be read, is no index, or names a file outside of its folder.
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(index).map_err(|error| SourceError::io("read", index, &error))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| {
        SourceError::new(format!(
            "{} is not a weight index: {error}",
            index.display()
        ))
    })?;
    let shards = parsed.weight_map.into_values().collect::<BTreeSet<_>>();
    match shards.iter().find(|shard| !is_inside(shard)) {
        Some(shard) => Err(SourceError::new(format!(
            "{} names a file outside the model: {shard:?}",
            index.display()
        ))),
        None => Ok(shards),
    }
}

/// The files that can hold weights of the base at `path`, sorted: the file itself; of a folder `model.safetensors`, the index
/// with its shards, and `.gguf` files.
///
/// # Errors
/// When the folder or its index cannot be read.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let unreadable = |error| SourceError::io("read", path, &error);
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        let is_gguf = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if is_gguf || file.ends_with(SINGLE) {
            files.insert(file);
        }
    }
    let index = path.join(INDEX);
    if index.exists() {
        files.extend(shards(&index)?.iter().map(|shard| path.join(shard)));
        files.insert(index);
    }
    Ok(files.into_iter().collect())
}
