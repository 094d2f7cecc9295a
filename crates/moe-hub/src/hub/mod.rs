//! Models of the Hugging Face Hub, in the Hub's own cache, so that other programs share the files.

mod download;
mod layout;
mod settings;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use reqwest::Url;

use self::download::Download;
use self::layout::Layout;
use crate::cache::Cache;
use crate::error::{Result, SourceError};
use crate::progress::Progress;
use crate::web::Web;

/// Small files that a model may have beside its configuration and weights.
const OPTIONAL_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
    "added_tokens.json",
];

/// A connection to the Hub. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE` and `HF_HUB_OFFLINE` mean what they mean to
/// `huggingface_hub`.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    folder: PathBuf,
    offline: bool,
    web: Web,
}

impl Hub {
    /// As the environment says; with `HF_HUB_OFFLINE=1` only the Hub's cache is looked at.
    ///
    /// # Errors
    /// When `HF_ENDPOINT` is no address or no HTTP client can be made.
    pub fn from_env() -> Result<Self> {
        let hub = Self::at(
            &settings::endpoint(),
            &settings::cache()?,
            settings::is_offline(),
        )?;
        Ok(Self {
            token: settings::token(),
            ..hub
        })
    }

    /// At the address `endpoint`, with files in `cache_dir`, whatever the environment says.
    ///
    /// # Errors
    /// When `endpoint` is no address.
    pub fn at(endpoint: &str, cache_dir: &Path, offline: bool) -> Result<Self> {
        let is_web = |url: &Url| ["http", "https"].contains(&url.scheme()) && url.has_host();
        if !Url::parse(endpoint).is_ok_and(|url| is_web(&url)) {
            return Err(SourceError::new(format!(
                "the Hugging Face Hub cannot be used: {endpoint:?} is no address"
            ))
            .with_hint("is HF_ENDPOINT an address such as https://huggingface.co?"));
        }
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            token: None,
            folder: cache_dir.into(),
            offline,
            web: Web::new()?,
        })
    }

    /// Fetches configuration, tokenizer and weights (`model.safetensors`, or every shard of its index) at one commit; returns their folder.
    ///
    /// A branch is the commit that it stands for when this begins, for all files; without a network, that of the last time. Files that
    /// are in the cache are not fetched again; a file whose transfer broke off is gone on with.
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
        let revision = revision.unwrap_or("main");
        let mut download = Download {
            hub: self,
            repo,
            layout: Layout::new(&self.folder, repo),
            commit: String::new(),
            offline: self.offline,
            cache,
            progress,
        };
        download.commit = download.commit_of(revision)?;
        let missing =
            |name: &str| SourceError::new(format!("{repo} has no {name} at revision {revision}"));
        if download.file("config.json")?.is_none() {
            return Err(missing("config.json").with_hint(
                "is it a model repository with safetensors weights, and is its name spelt right?",
            ));
        }
        for name in OPTIONAL_FILES {
            download.file(name)?;
        }
        for shard in download.shards()? {
            if download.file(&shard)?.is_none() {
                return Err(missing(&shard)
                    .with_hint("only models in safetensors format can be read from the Hub"));
            }
        }
        let Download { layout, commit, .. } = download;
        layout.record_commit(revision, &commit);
        Ok(layout.snapshot(&commit))
    }
}
