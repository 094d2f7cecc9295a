//! One model's files at one revision: fetched, checked, and begun again where a transfer broke off.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFError, HFRepositorySync};

use super::relay::{Relay, report};
use crate::cache::Cache;
use crate::error::{Result, SourceError};
use crate::progress::Progress;
use crate::web::root_cause;
use crate::weights::{self, INDEX, SINGLE};

/// How often a file is asked for whose transfer broke off or came out wrong.
const ATTEMPTS: usize = 3;

/// One model's files at one revision.
pub(super) struct Download<'a> {
    pub(super) files: HFRepositorySync<RepoTypeModel>,
    pub(super) repo: &'a str,
    pub(super) revision: String,
    pub(super) offline: bool,
    pub(super) cache: &'a Cache,
    pub(super) progress: &'a mut dyn FnMut(Progress),
}

impl Download<'_> {
    /// Names of the weight files.
    pub(super) fn shards(&mut self) -> Result<BTreeSet<String>> {
        let Some(path) = self.file(INDEX)? else {
            return Ok(BTreeSet::from([SINGLE.to_string()]));
        };
        weights::shards(&path)
    }

    /// The local path of a file, fetched if need be; none when the model has no such file.
    pub(super) fn file(&mut self, name: &str) -> Result<Option<PathBuf>> {
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
