//! `model.safetensors`, or shards listed by `model.safetensors.index.json`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use moe_kernels::Blocks;

use super::unique_map::UniqueMap;
use super::{SafetensorsFile, TensorEntry};
use crate::checkpoint::check::is_harmless;
use crate::checkpoint::folder::read_text;
use crate::checkpoint::positioned::PositionedFile;
use crate::error::{Error, Result};

/// The weight files of one checkpoint folder.
#[derive(Debug)]
pub(in crate::checkpoint) struct Sharded {
    dir: PathBuf,
    files: Vec<SafetensorsFile>,
    /// Tensor → index into `files`.
    places: BTreeMap<String, usize>,
}

impl Sharded {
    pub(in crate::checkpoint) fn open(dir: &Path) -> Result<Self> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        if single.exists() {
            let file = SafetensorsFile::open(&single)?;
            let places = file.names().map(|name| (name.to_owned(), 0)).collect();
            return Ok(Self {
                dir: dir.to_path_buf(),
                files: vec![file],
                places,
            });
        }
        if index.exists() {
            return Self::open_index(dir, &index);
        }
        let pickle = fs::read_dir(dir).map_err(Error::io(dir))?.any(|entry| {
            let name = entry.map(|entry| entry.file_name());
            name.is_ok_and(|name| name.to_string_lossy().starts_with("pytorch_model"))
        });
        let way_out = if pickle {
            "; pytorch_model files are not read (they can run code): save the model as safetensors"
        } else {
            ""
        };
        let message = format!("no model.safetensors and no model.safetensors.index.json{way_out}");
        Err(Error::file(dir, message))
    }

    fn open_index(dir: &Path, index: &Path) -> Result<Self> {
        let weight_map = weight_map(index)?;
        let mut shards: Vec<&str> = weight_map.iter().map(|(_, shard)| shard.as_str()).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut files = Vec::with_capacity(shards.len());
        for shard in &shards {
            let path = dir.join(plain_path(shard, index)?);
            if !path.exists() {
                let message = format!("names the shard {shard}, which is not in the folder");
                return Err(Error::file(index, message));
            }
            files.push(SafetensorsFile::open(&path)?);
        }
        let mut places = BTreeMap::new();
        for (name, shard) in &weight_map {
            let place = shards.binary_search(&shard.as_str());
            let place = place.expect("every shard of the map was collected");
            if files[place].tensor(name).is_some() {
                places.insert(name.clone(), place);
            } else if !is_harmless(name) {
                let message = format!("the index places it in {shard}, which does not hold it");
                return Err(Error::tensor(index, name, message));
            }
        }
        check_listed(&files, &places, index)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            files,
            places,
        })
    }

    pub(in crate::checkpoint) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    pub(in crate::checkpoint) fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.files[*self.places.get(name)?].tensor(name)
    }

    /// The file that holds a tensor, and its bytes there.
    pub(in crate::checkpoint) fn stored(
        &self,
        name: &str,
    ) -> Option<(&PositionedFile, Range<u64>)> {
        let shard = &self.files[*self.places.get(name)?];
        Some((&shard.file, shard.tensor(name)?.bytes.clone()))
    }

    pub(in crate::checkpoint) fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        match self.places.get(name) {
            Some(&place) => self.files[place].read_f32(name),
            None => Err(Error::tensor(&self.dir, name, "not in this checkpoint")),
        }
    }

    pub(in crate::checkpoint) fn has_blocks(&self, name: &str) -> bool {
        self.tensor(name)
            .is_some_and(|tensor| tensor.blocks().is_some())
    }

    pub(in crate::checkpoint) fn read_blocks(&self, name: &str) -> Result<Option<Blocks>> {
        match self.places.get(name) {
            Some(&place) => self.files[place].read_blocks(name),
            None => Err(Error::tensor(&self.dir, name, "not in this checkpoint")),
        }
    }

    pub(in crate::checkpoint) fn bytes_on_disk(&self) -> u64 {
        self.files.iter().map(SafetensorsFile::bytes_on_disk).sum()
    }
}

/// Every tensor that a shard holds must be listed, and for that shard.
fn check_listed(
    files: &[SafetensorsFile],
    places: &BTreeMap<String, usize>,
    index: &Path,
) -> Result<()> {
    for (place, file) in files.iter().enumerate() {
        let unlisted = |name: &&str| places.get(*name) != Some(&place) && !is_harmless(name);
        if let Some(name) = file.names().filter(unlisted).min() {
            let message = format!(
                "{} holds it, but the index does not list it there",
                file.path().display()
            );
            return Err(Error::tensor(index, name, message));
        }
    }
    Ok(())
}

/// The part of an index file that is read.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

fn weight_map(index: &Path) -> Result<Vec<(String, String)>> {
    let parsed: Index = serde_json::from_str(&read_text(index)?)
        .map_err(|error| Error::file(index, format!("not a valid index of shards: {error}")))?;
    Ok(parsed.weight_map.0)
}

/// A shard lies inside the folder: no absolute path, no `..`.
fn plain_path<'a>(shard: &'a str, index: &Path) -> Result<&'a Path> {
    let path = Path::new(shard);
    let plain = |part: Component| matches!(part, Component::Normal(_));
    if shard.ends_with(".safetensors") && path.components().all(plain) {
        return Ok(path);
    }
    let message = format!(
        "names the shard `{shard}`; expected the name of a .safetensors file inside the folder"
    );
    Err(Error::file(index, message))
}
