//! Models of the Hugging Face Hub, in the Hub's own cache, so that other programs share the files.

mod download;
mod relay;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use hf_hub::{HFClient, HFClientSync, HFError};

use self::download::Download;
use crate::cache::Cache;
use crate::error::{Result, SourceError};
use crate::progress::Progress;

/// Small files that a model may have beside its configuration and weights.
const OPTIONAL_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
    "added_tokens.json",
];
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
