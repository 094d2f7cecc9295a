//! One model's files at one commit: fetched, checked, and begun again where one came out wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Hub;
use super::layout::{Etag, Layout, is_commit};
use crate::cache::Cache;
use crate::error::{Result, SourceError, Unanswered};
use crate::progress::Progress;
use crate::weights::{self, INDEX, SINGLE};

/// How often a file is asked for that came out wrong.
const ATTEMPTS: usize = 3;
/// A file whose size the Hub does not tell is no weights, and not larger than this.
const MAX_UNTOLD: u64 = 256 << 20;

/// One model's files at one commit.
pub(super) struct Download<'a> {
    pub(super) hub: &'a Hub,
    pub(super) repo: &'a str,
    pub(super) layout: Layout,
    pub(super) commit: String,
    /// Whether only the cache is looked at.
    pub(super) offline: bool,
    pub(super) cache: &'a Cache,
    pub(super) progress: &'a mut dyn FnMut(Progress),
}

/// What the Hub says of a file before it sends it.
struct Announced {
    etag: Etag,
    size: Option<u64>,
}

impl Download<'_> {
    /// The commit that a revision stands for. Without a network it is the one of the last time, and from then on nothing is asked.
    ///
    /// # Errors
    /// When the Hub has no such model or revision, or it is not reached and the model was never fetched.
    pub(super) fn commit_of(&mut self, revision: &str) -> Result<String> {
        if is_commit(revision) {
            return Ok(revision.to_ascii_lowercase());
        }
        let recorded = self.layout.recorded(revision);
        if self.offline {
            return recorded.ok_or_else(|| {
                SourceError::new(format!("{} is not in the Hub's cache", self.repo))
                    .with_hint("HF_HUB_OFFLINE is set: unset it, or point HF_HUB_CACHE to a cache that holds the model")
            });
        }
        // A branch may have slashes of its own (`refs/pr/1`).
        let address = self.address(&revision.replace('/', "%2F"), "config.json");
        let head = match self.hub.web.head(&address, self.hub.token.as_deref()) {
            Ok(head) => head,
            Err(Unanswered::Unreached(error)) => {
                self.offline = recorded.is_some();
                return recorded.ok_or_else(|| self.unreached(&error));
            }
            Err(Unanswered::Refused(error)) => return Err(self.refused(error)),
        };
        let Some(head) = head else {
            return Err(SourceError::new(format!(
                "{} has no config.json at revision {revision}",
                self.repo
            ))
            .with_hint(
                "is it a model repository with safetensors weights, and is its name spelt right?",
            ));
        };
        let commit = head.get("x-repo-commit").and_then(|it| it.to_str().ok());
        match commit.filter(|commit| is_commit(commit)) {
            Some(commit) => Ok(commit.to_ascii_lowercase()),
            None => Err(SourceError::new(format!(
                "{address}: the server does not say which commit {revision} stands for"
            ))
            .with_hint(
                "is HF_ENDPOINT a mirror of the Hub? Or name the commit: hf:owner/name@COMMIT",
            )),
        }
    }

    /// Names of the weight files.
    pub(super) fn shards(&mut self) -> Result<BTreeSet<String>> {
        let Some(path) = self.file(INDEX)? else {
            return Ok(BTreeSet::from([SINGLE.to_string()]));
        };
        weights::shards(&path)
    }

    /// The local path of a file, fetched if need be; none when the model has no such file.
    pub(super) fn file(&mut self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.layout.snapshot(&self.commit).join(name);
        if path.is_file() {
            let etag = self.layout.content_of(&path);
            match self.fault(&path, etag.as_ref(), None)? {
                None => return Ok(Some(path)),
                Some(fault) if self.offline => {
                    return Err(SourceError::new(format!("{}: {fault}", path.display()))
                        .with_hint("it is damaged, and only a network has it whole"));
                }
                Some(_) => self.layout.forget(&path),
            }
        }
        if self.offline {
            return Ok(None);
        }
        let Some(announced) = self.announced(name)? else {
            return Ok(None);
        };
        self.fetch(name, &announced)?;
        let linked = self.layout.link(&self.commit, name, &announced.etag);
        linked.map(Some)
    }

    /// What the Hub says of a file; none when the model has no such file.
    fn announced(&self, name: &str) -> Result<Option<Announced>> {
        let address = self.address(&self.commit, name);
        let head = match self.hub.web.head(&address, self.hub.token.as_deref()) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(Unanswered::Unreached(error)) => return Err(self.unreached(&error)),
            Err(Unanswered::Refused(error)) => return Err(self.refused(error)),
        };
        let said = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| head.get(*name));
            value.and_then(|value| value.to_str().ok())
        };
        // Of large files, which lie elsewhere, the Hub tells name and size in headers of its own.
        let etag = said(["x-linked-etag", "etag"]).unwrap_or_default();
        // The length of an answer that only says where the file lies is not the file's.
        let own = head
            .get("location")
            .map_or("content-length", |_| "x-linked-size");
        let size = said(["x-linked-size", own]);
        let etag = Etag::of(etag).ok_or_else(|| {
            SourceError::new(format!(
                "{address}: the server calls its content {etag:?}, which is no plain name (ETag)"
            ))
            .with_hint("is HF_ENDPOINT a mirror of the Hub?")
        })?;
        let size = size.and_then(|size| size.parse().ok());
        Ok(Some(Announced { etag, size }))
    }

    /// Brings a content into the cache, where it is not there yet.
    fn fetch(&mut self, name: &str, announced: &Announced) -> Result<()> {
        let (repo, blob) = (self.repo, self.layout.blob(&announced.etag));
        let address = self.address(&self.commit, name);
        let at_most = announced.size.unwrap_or(MAX_UNTOLD);
        let mut broken = String::new();
        for _ in 0..ATTEMPTS {
            if !blob.is_file() {
                let mut tell = |it: Progress| {
                    let what = format!("{repo}/{name}");
                    (self.progress)(Progress { what, ..it });
                };
                let token = self.hub.token.as_deref();
                let fetched = self
                    .hub
                    .web
                    .fetch(&address, token, &blob, at_most, &mut tell);
                fetched.map_err(|error| error.within(format_args!("{name} of {repo}")))?;
            }
            match self.fault(&blob, Some(&announced.etag), announced.size)? {
                None => return Ok(()),
                Some(fault) => broken = fault,
            }
            let _ = fs::remove_file(&blob);
        }
        Err(SourceError::new(format!(
            "{name} of {repo} did not arrive whole in {ATTEMPTS} attempts: {broken}"
        ))
        .with_hint("run the same command again: files that are complete are kept"))
    }

    /// What is wrong with a file that has arrived: its length, or its hash where its content is called by that.
    fn fault(&self, path: &Path, etag: Option<&Etag>, size: Option<u64>) -> Result<Option<String>> {
        let metadata = fs::metadata(path).map_err(|error| SourceError::io("read", path, &error))?;
        let found = metadata.len();
        if let Some(size) = size.filter(|size| *size != found) {
            return Ok(Some(format!("{found} bytes of {size}")));
        }
        match etag.and_then(Etag::sha256) {
            Some(sha256) if !self.cache.has_sha256(path, sha256)? => {
                Ok(Some(format!("its SHA-256 is not {sha256}")))
            }
            _ => Ok(None),
        }
    }

    fn address(&self, revision: &str, name: &str) -> String {
        let (endpoint, repo) = (&self.hub.endpoint, self.repo);
        format!("{endpoint}/{repo}/resolve/{revision}/{name}")
    }

    fn unreached(&self, error: &SourceError) -> SourceError {
        SourceError::new(error.to_string()).with_hint(
            "is there a network? A mirror can be named in HF_ENDPOINT, a proxy in HTTPS_PROXY",
        )
    }

    fn refused(&self, error: SourceError) -> SourceError {
        error.within(format_args!("{} is not to be had", self.repo)).with_hint(
            "either no such model exists, or it is private or gated: accept its terms on its page and set HF_TOKEN",
        )
    }
}
