//! What the frozen layers below the first expert make of a text: computed once, kept on disk.
//!
//! With experts in the upper layers only (`adapters.layers = "last:8"`) everything below them is a function of the text alone,
//! the same in every epoch, evaluation and run. A text goes through these layers by itself, so that its numbers do not depend
//! on the batch that it is met in, nor on whether they were kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use moe_core::model::Decoder;
use moe_lora::States;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Bytes of the checksum at the head of a file.
const CHECKSUM: usize = 32;

/// The frozen lower layers of a decoder, with what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Trunk<'a> {
    /// The decoder that has the layers.
    pub decoder: &'a Decoder,
    /// What is kept.
    pub cache: &'a TrunkCache,
}

/// Files with the states of texts after a number of frozen layers:
/// ```text
/// <root>/<fingerprint of the layers>/<sha256 of the tokens>    sha256 of what follows, then [tokens, d_model] little-endian f32
/// ```
#[derive(Debug)]
pub struct TrunkCache {
    layers: usize,
    folder: PathBuf,
    /// Bytes that may still be written.
    room: AtomicU64,
    /// Why nothing is written any more.
    failure: OnceLock<String>,
    /// Whether somebody has been told.
    told: AtomicBool,
}

impl TrunkCache {
    /// The cache below `root` for the first `layers` layers of `decoder`, of at most `budget` bytes together with what is kept
    /// for other layers and bases; of those the ones that were used longest ago make room.
    ///
    /// Where the folder cannot be made or read nothing is written, which [`Self::failure`] says.
    pub fn open(decoder: &Decoder, layers: usize, root: &Path, budget: u64) -> Self {
        let folder = root.join(fingerprint(decoder, layers));
        let used = || -> io::Result<u64> {
            fs::create_dir_all(&folder)?;
            // So that this folder is the last to make room; where times cannot be set it is merely one of all.
            let _ = fs::File::open(&folder).and_then(|it| it.set_modified(SystemTime::now()));
            make_room(root, &folder, budget)
        };
        let mut cache = Self {
            layers,
            folder: folder.clone(),
            room: AtomicU64::new(0),
            failure: OnceLock::new(),
            told: AtomicBool::new(false),
        };
        match used() {
            Ok(used) => cache.room = AtomicU64::new(budget.saturating_sub(used)),
            Err(error) => cache.fails(&error),
        }
        cache
    }

    /// Remembers the first failure.
    fn fails(&self, error: &io::Error) {
        let _ = self.failure.set(format!(
            "states of the frozen layers are not kept (any more), and computed each time: {}: {error}; \
             another folder, or `base.trunk_cache_mb = 0`, does without this one",
            self.folder.display()
        ));
    }

    /// Why nothing is written any more, where that is so: runs go on, slower.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// [`Self::failure`], the first time that it is asked for in this way: what is said once is enough.
    pub fn news(&self) -> Option<&str> {
        let failure = self.failure()?;
        (!self.told.swap(true, Ordering::Relaxed)).then_some(failure)
    }

    fn path(&self, tokens: &[u32]) -> PathBuf {
        let mut hash = Sha256::new();
        tokens
            .iter()
            .for_each(|token| hash.update(token.to_le_bytes()));
        self.folder.join(hex::encode(hash.finalize()))
    }

    /// The file's numbers; none where there is no whole file of that many.
    fn read(&self, path: &Path, numbers: usize) -> Option<Vec<f32>> {
        let bytes = fs::read(path).ok()?;
        let (checksum, values) = bytes.split_at_checked(CHECKSUM)?;
        let whole =
            values.len() == numbers * size_of::<f32>() && checksum == &Sha256::digest(values)[..];
        whole.then(|| {
            let numbers = values.as_chunks::<4>().0.iter();
            numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect()
        })
    }

    /// Keeps the numbers where there is room for them. The first failure is remembered and ends all writing.
    fn write(&self, path: &Path, numbers: &[f32]) {
        let size = (CHECKSUM + size_of_val(numbers)) as u64;
        let taken = self
            .room
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |room| {
                room.checked_sub(size)
            });
        if taken.is_err() || self.failure.get().is_some() {
            return;
        }
        let values: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let write = || -> io::Result<()> {
            use std::io::Write;
            // Whole or not there; not synced, since a file that a crash has damaged is found out by its checksum.
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&Sha256::digest(&values))?;
            file.write_all(&values)?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        if let Err(error) = write() {
            self.fails(&error);
        }
    }
}

impl Trunk<'_> {
    /// The states of every text, padded at the end to `seq` tokens, on `device`.
    ///
    /// # Panics
    /// When a text has no token or more than `seq`.
    pub fn states(&self, texts: &[&[u32]], seq: usize, device: &Device) -> States {
        let d_model = self.decoder.config().d_model;
        let mut x = vec![0.0; texts.len() * seq * d_model];
        texts
            .par_iter()
            .zip(x.par_chunks_mut(seq * d_model))
            .for_each(|(text, row)| {
                let states = self.of_text(text);
                row[..states.len()].copy_from_slice(&states);
            });
        let x = TensorData::new(x, [texts.len(), seq, d_model]);
        States {
            layers: self.cache.layers,
            x: Tensor::from_data(x, device),
        }
    }

    /// `[tokens, d_model]`, read or computed and kept.
    fn of_text(&self, tokens: &[u32]) -> Vec<f32> {
        let path = self.cache.path(tokens);
        let numbers = tokens.len() * self.decoder.config().d_model;
        self.cache.read(&path, numbers).unwrap_or_else(|| {
            let states = computed(self.decoder, tokens, self.cache.layers);
            self.cache.write(&path, &states);
            states
        })
    }
}

/// One text through the first `layers` layers, `[tokens, d_model]`.
fn computed(decoder: &Decoder, tokens: &[u32], layers: usize) -> Vec<f32> {
    let device = decoder.device();
    let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, tokens.len()]), &device);
    let real = Tensor::<2, Bool>::full([1, tokens.len()], true, &device);
    let states = decoder.states(ids, real, layers).into_data();
    states.iter::<f32>().collect()
}

/// Rows of the embedding that are summed together.
const ROWS: usize = 4096;

/// Tokens of the text that tells trunks apart.
const PROBE: u32 = 64;

/// A name for the first `layers` layers of `decoder` on this machine, made of what they compute: of the embedding's rows, and
/// of a text's states. Other weights, another precision or another kernel has another name.
fn fingerprint(decoder: &Decoder, layers: usize) -> String {
    let vocabulary = decoder.config().vocab_size as u32;
    let probe: Vec<u32> = (0..PROBE)
        .map(|place| (u64::from(vocabulary) * u64::from(place) / u64::from(PROBE)) as u32)
        .collect();
    let mut hash = Sha256::new();
    hash.update(layers.to_le_bytes());
    for first in (0..vocabulary).step_by(ROWS) {
        let ids: Vec<i64> = (first..vocabulary.min(first + ROWS as u32))
            .map(i64::from)
            .collect();
        let ids = TensorData::new(ids.clone(), [1, ids.len()]);
        let rows = decoder.embed(Tensor::from_data(ids, &decoder.device()));
        let sums = rows.sum_dim(2).into_data();
        sums.iter::<f32>()
            .for_each(|sum| hash.update(sum.to_le_bytes()));
    }
    for number in computed(decoder, &probe, layers) {
        hash.update(number.to_le_bytes());
    }
    hex::encode(hash.finalize())
}

/// Removes folders below `root` other than `own`, those first that were used longest ago, until all take at most `budget`.
/// Returns what is left in bytes.
fn make_room(root: &Path, own: &Path, budget: u64) -> io::Result<u64> {
    let mut used = size(own)?;
    let mut others = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.path() != own && entry.file_type()?.is_dir() {
            others.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    others.sort();
    // The newest are counted first, and stay.
    for (_, folder) in others.into_iter().rev() {
        let size = size(&folder)?;
        if used + size <= budget {
            used += size;
        } else {
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(used)
}

/// Bytes of the files in a folder.
fn size(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        // A file may go while this counts.
        total += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use moe_core::config::ModelConfig;

    use super::*;

    fn decoder(seed: u64) -> Decoder {
        let config = serde_json::json!({
            "model_type": "llama", "vocab_size": 80, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "tie_word_embeddings": true, "max_position_embeddings": 64
        });
        let config = ModelConfig::from_json(&config.to_string(), Path::new("tiny")).unwrap();
        Decoder::random(&config, seed, &Device::flex())
    }

    const TEXTS: [&[u32]; 3] = [&[3, 17, 5, 60], &[9], &[4, 4]];

    fn states(decoder: &Decoder, cache: &TrunkCache, texts: &[&[u32]]) -> Vec<f32> {
        let trunk = Trunk { decoder, cache };
        let states = trunk.states(texts, 4, &decoder.device());
        assert_eq!(states.layers, 2);
        assert_eq!(states.x.dims(), [texts.len(), 4, 16]);
        states.x.into_data().iter::<f32>().collect()
    }

    fn files(root: &Path) -> Vec<PathBuf> {
        let folders = fs::read_dir(root).unwrap().map(|it| it.unwrap().path());
        folders
            .flat_map(|folder| fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()))
            .collect()
    }

    #[test]
    fn states_are_those_of_the_layers_and_the_same_in_any_batch() {
        let (decoder, root) = (decoder(1), tempfile::tempdir().unwrap());
        let cache = TrunkCache::open(&decoder, 2, root.path(), 1 << 20);
        let all = states(&decoder, &cache, &TEXTS);
        for (row, text) in TEXTS.iter().enumerate() {
            let alone = states(&decoder, &cache, &[text]);
            assert_eq!(alone, all[row * 64..(row + 1) * 64]);
            let ids: Vec<i64> = text.iter().map(|&id| id.into()).collect();
            let ids = TensorData::new(ids, [1, text.len()]);
            let ids = Tensor::<2, Int>::from_data(ids, &decoder.device());
            let real = ids.clone().greater_equal_elem(0);
            let want = decoder.states(ids, real, 2).into_data();
            let want: Vec<f32> = want.iter().collect();
            assert_eq!(alone[..want.len()], want);
            assert!(alone[want.len()..].iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn what_was_kept_is_read_and_what_is_damaged_is_computed_again() {
        let (decoder, root) = (decoder(1), tempfile::tempdir().unwrap());
        let open = || TrunkCache::open(&decoder, 2, root.path(), 1 << 20);
        let fresh = states(&decoder, &open(), &TEXTS);
        assert_eq!(files(root.path()).len(), 3);
        assert_eq!(states(&decoder, &open(), &TEXTS), fresh);
        for file in files(root.path()) {
            let mut bytes = fs::read(&file).unwrap();
            bytes[CHECKSUM + 1] ^= 1;
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(states(&decoder, &open(), &TEXTS), fresh);
        // A whole file is believed: the numbers come from there.
        let lie = vec![7.0; 16];
        open().write(&open().path(&[9]), &lie);
        assert_eq!(states(&decoder, &open(), &[&[9]])[..16], lie);
    }

    #[test]
    fn a_budget_is_kept_and_what_was_used_longest_ago_makes_room() {
        let (one, two) = (decoder(1), decoder(2));
        let root = tempfile::tempdir().unwrap();
        let text = (CHECKSUM + 16 * 4) as u64;
        let open = |decoder, budget| TrunkCache::open(decoder, 2, root.path(), budget);
        // [9] and [4] fit, the longer text does not: it is computed and not kept.
        let cache = open(&one, 2 * text);
        states(&one, &cache, &[TEXTS[1], TEXTS[0], &[4]]);
        assert_eq!(files(root.path()).len(), 2);
        assert_eq!(cache.failure(), None);
        // Another base has a folder of its own; the first one's makes room where both do not fit.
        open(&two, 3 * text);
        assert_eq!(files(root.path()).len(), 2);
        open(&two, text);
        assert_eq!(files(root.path()).len(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_slows_the_run_and_says_so() {
        let (decoder, root) = (decoder(1), tempfile::tempdir().unwrap());
        let cache = TrunkCache::open(&decoder, 2, root.path(), 1 << 20);
        let before = states(&decoder, &cache, &TEXTS);
        fs::remove_dir_all(&cache.folder).unwrap();
        fs::write(&cache.folder, "in the way").unwrap();
        assert_eq!(states(&decoder, &cache, &TEXTS), before);
        assert!(cache.failure().is_some_and(|why| why.contains("not kept")));
    }

    #[test]
    fn a_cache_that_cannot_be_opened_changes_no_number_and_is_told_once() {
        let (decoder, root) = (decoder(1), tempfile::tempdir().unwrap());
        let kept = TrunkCache::open(&decoder, 2, root.path(), 1 << 20);
        // A path below a file can be made by nobody, whatever rights they have.
        let file = root.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let cache = TrunkCache::open(&decoder, 2, &file.join("trunks"), 1 << 20);
        let news = cache.news().unwrap();
        assert!(
            news.contains("file") && news.contains("trunk_cache_mb"),
            "{news}"
        );
        assert_eq!(cache.news(), None);
        assert!(cache.failure().is_some());
        let texts = states(&decoder, &cache, &TEXTS);
        assert_eq!(texts, states(&decoder, &kept, &TEXTS));
        assert_eq!(fs::read(&file).unwrap(), b"in the way");
    }

    #[test]
    fn other_layers_and_other_weights_have_another_name() {
        let names = [
            fingerprint(&decoder(1), 1),
            fingerprint(&decoder(1), 2),
            fingerprint(&decoder(2), 1),
        ];
        assert_eq!(names[0], fingerprint(&decoder(1), 1));
        assert!(names[0] != names[1] && names[0] != names[2]);
    }
}
