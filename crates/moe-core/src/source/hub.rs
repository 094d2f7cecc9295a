//! Models of the Hugging Face Hub, in the Hub's own cache, so that other programs share the files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync};
use serde::Deserialize;

use super::cache::Cache;
use super::error::{Result, SourceError};
use super::{Progress, is_inside};

/// Small files that a model may have beside its configuration and weights.
const OPTIONAL_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
    "added_tokens.json",
];
const INDEX: &str = "model.safetensors.index.json";
/// How often a file is asked for whose transfer broke off or came out wrong.
const ATTEMPTS: usize = 3;

/// A connection to the Hub. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_CACHE` mean what they mean to `huggingface_hub`.
#[derive(Clone, Debug)]
pub struct Hub {
    client: HFClientSync,
    offline: bool,
}

impl Hub {
    /// As the environment says; with `HF_HUB_OFFLINE=1` only the Hub's cache is looked at.
    ///
    /// # Errors
    /// When `HF_ENDPOINT` is no address or no HTTP client can be made.
    pub fn from_env() -> Result<Self> {
        let offline = std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| {
            ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
        });
        let client = HFClient::builder()
            .build_sync()
            .map_err(|error| unusable(&error))?;
        Ok(Self { client, offline })
    }

    /// At the address `endpoint`, with files in `cache_dir`, whatever the environment says.
    ///
    /// # Errors
    /// When `endpoint` is no address.
    pub fn at(endpoint: &str, cache_dir: &Path, offline: bool) -> Result<Self> {
        let builder = HFClient::builder()
            .endpoint(endpoint)
            .cache_dir(cache_dir)
            .retry_max_attempts(1);
        Ok(Self {
            client: builder.build_sync().map_err(|error| unusable(&error))?,
            offline,
        })
    }

    /// Fetches configuration, tokenizer and weights (`model.safetensors`, or every shard of its index) at one commit; returns their folder.
    ///
    /// Files already in the cache are not fetched again; a file whose transfer broke off is fetched anew.
    ///
    /// # Errors
    /// When the Hub does not answer, has no such model, wants a token, or sends a file that is too short or of the wrong hash.
    pub fn fetch(
        &self,
        repo: &str,
        revision: Option<&str>,
        cache: &Cache,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf> {
        let (owner, name) = hf_hub::split_id(repo);
        let mut download = Download {
            files: self.client.model(owner, name),
            repo,
            revision: revision.unwrap_or("main").to_string(),
            offline: self.offline,
            cache,
            progress,
        };
        let config = download.file("config.json")?.ok_or_else(|| {
            SourceError::new(format!(
                "{repo} has no config.json at revision {}",
                download.revision
            ))
            .with_hint(
                "is it a model repository with safetensors weights, and is its name spelt right?",
            )
        })?;
        let folder = config.parent().map(Path::to_path_buf).unwrap_or_default();
        // From here on the commit that `main` stood for, so that files of two versions never mix.
        if let Some(commit) = folder.file_name().and_then(|name| name.to_str()) {
            download.revision = commit.to_string();
        }
        for name in OPTIONAL_FILES {
            download.file(name)?;
        }
        for shard in download.shards()? {
            download.file(&shard)?.ok_or_else(|| {
                SourceError::new(format!(
                    "{repo} has no {shard} at revision {}",
                    download.revision
                ))
                .with_hint("only models in safetensors format can be read from the Hub")
            })?;
        }
        Ok(folder)
    }
}

fn unusable(error: &HFError) -> SourceError {
    SourceError::new(format!("the Hugging Face Hub cannot be used: {error}"))
        .with_hint("is HF_ENDPOINT an address such as https://huggingface.co?")
}

/// One model's files at one revision.
struct Download<'a> {
    files: HFRepositorySync<RepoTypeModel>,
    repo: &'a str,
    revision: String,
    offline: bool,
    cache: &'a Cache,
    progress: &'a mut dyn FnMut(Progress),
}

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl Download<'_> {
    /// Names of the weight files.
    fn shards(&mut self) -> Result<BTreeSet<String>> {
        let Some(path) = self.file(INDEX)? else {
            return Ok(BTreeSet::from(["model.safetensors".to_string()]));
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| SourceError::io("read", &path, &error))?;
        let index: Index = serde_json::from_str(&text).map_err(|error| {
            SourceError::new(format!("{} is not a weight index: {error}", path.display()))
        })?;
        let shards = index.weight_map.into_values().collect::<BTreeSet<_>>();
        match shards.iter().find(|shard| !is_inside(shard)) {
            Some(shard) => Err(SourceError::new(format!(
                "{} names a file outside the model: {shard:?}",
                path.display()
            ))),
            None => Ok(shards),
        }
    }

    /// The local path of a file, fetched if need be; none when the model has no such file.
    fn file(&mut self, name: &str) -> Result<Option<PathBuf>> {
        let mut broken = String::new();
        for attempt in 0..ATTEMPTS {
            let (result, size) = self.transfer(name, attempt > 0);
            match result {
                Ok(path) => match self.fault(&path, size)? {
                    None => return Ok(Some(path)),
                    Some(fault) => {
                        discard(&path);
                        broken = fault;
                    }
                },
                Err(HFError::EntryNotFound { .. }) => return Ok(None),
                Err(HFError::LocalEntryNotFound { .. }) if name != "config.json" => {
                    return Ok(None);
                }
                // The configuration came from the cache, the network is gone: the rest is in the cache or missing.
                Err(HFError::Request { source, .. })
                    if source.is_connect() && name != "config.json" && !self.offline =>
                {
                    self.offline = true;
                    return self.file(name);
                }
                Err(HFError::Request { source, .. }) if !source.is_connect() => {
                    broken = root_cause(&source)
                }
                Err(error) => return Err(self.explain(name, &error)),
            }
        }
        Err(SourceError::new(format!(
            "{name} of {} did not arrive whole in {ATTEMPTS} attempts: {broken}",
            self.repo
        ))
        .with_hint("run the same command again: files that are complete are kept"))
    }

    /// Fetches one file; also returns its size where the Hub told it.
    fn transfer(&mut self, name: &str, again: bool) -> (hf_hub::HFResult<PathBuf>, Option<u64>) {
        let (sender, receiver) = mpsc::channel();
        let (files, revision, offline) = (self.files.clone(), self.revision.clone(), self.offline);
        let what = format!("{}/{name}", self.repo);
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let request = files
                    .download_file()
                    .filename(name)
                    .revision(revision)
                    .force_download(again && !offline);
                request
                    .local_files_only(offline)
                    .progress(Relay(sender))
                    .send()
            });
            let size = report(&receiver, &what, self.progress);
            let result = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (result, size)
        })
    }

    /// What is wrong with a file that has arrived: its length, or its hash where the cache names large files by their SHA-256.
    fn fault(&self, path: &Path, size: Option<u64>) -> Result<Option<String>> {
        let found = std::fs::metadata(path)
            .map_err(|error| SourceError::io("read", path, &error))?
            .len();
        if let Some(size) = size.filter(|size| *size != found) {
            return Ok(Some(format!("{found} bytes of {size}")));
        }
        let blob = std::fs::read_link(path)
            .ok()
            .and_then(|blob| Some(blob.file_name()?.to_str()?.to_string()));
        let is_sha256 =
            |name: &String| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        match blob.filter(is_sha256) {
            Some(sha256) if !self.cache.has_sha256(path, &sha256)? => {
                Ok(Some(format!("its SHA-256 is not {sha256}")))
            }
            _ => Ok(None),
        }
    }

    fn explain(&self, name: &str, error: &HFError) -> SourceError {
        let endpoint = self.endpoint();
        match error {
            HFError::LocalEntryNotFound { .. } => SourceError::new(format!("{} is not in the Hub's cache", self.repo))
                .with_hint("HF_HUB_OFFLINE is set: unset it, or point HF_HUB_CACHE to a cache that holds the model"),
            HFError::Request { source, .. } => {
                SourceError::new(format!("{endpoint} cannot be reached: {}", root_cause(source)))
                    .with_hint("is there a network? A mirror can be named in HF_ENDPOINT, a proxy in HTTPS_PROXY")
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                SourceError::new(format!("{endpoint} does not give {} to you: {error}", self.repo)).with_hint(
                    "either no such model exists, or it is private or gated: accept its terms on its page and set HF_TOKEN",
                )
            }
            error => SourceError::new(format!("{name} of {} cannot be fetched from {endpoint}: {error}", self.repo)),
        }
    }

    fn endpoint(&self) -> String {
        std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "the Hugging Face Hub".into())
    }
}

/// Removes a faulty file from the Hub's cache: the pointer and what it points to.
fn discard(path: &Path) {
    if let Ok(blob) = std::fs::canonicalize(path) {
        let _ = std::fs::remove_file(blob);
    }
    let _ = std::fs::remove_file(path);
}

/// The innermost reason; the outer ones repeat the address.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// (bytes so far, bytes in all where known); the first message of a transfer has no bytes yet.
struct Relay(Sender<(u64, Option<u64>)>);

impl ProgressHandler for Relay {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else {
            return;
        };
        let message = match event {
            DownloadEvent::Start { total_bytes, .. } => Some((0, *total_bytes)),
            DownloadEvent::Progress { files } => files
                .last()
                .map(|file| (file.bytes_completed, file.total_bytes)),
            DownloadEvent::AggregateProgress {
                bytes_completed,
                total_bytes,
                ..
            } => Some((*bytes_completed, *total_bytes)),
            DownloadEvent::Complete => None,
        };
        if let Some((done, total)) = message {
            // Nobody listens any more only when the transfer is over.
            let _ = self.0.send((done, (total > 0).then_some(total)));
        }
    }
}

/// Passes messages on until the transfer ends; returns the file's size.
fn report(
    receiver: &Receiver<(u64, Option<u64>)>,
    what: &str,
    progress: &mut dyn FnMut(Progress),
) -> Option<u64> {
    let mut size = None;
    for (done, total) in receiver {
        size = size.or(total);
        progress(Progress {
            what: what.into(),
            done,
            total,
        });
    }
    size
}
