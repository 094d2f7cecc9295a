//! [`Web`] and [`Hub`] of a program without the cargo feature `hub`: they reach nobody, and say how to.

use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::error::{Result, SourceError, Unanswered};
use crate::progress::Progress;

/// No HTTP client, because the cargo feature `hub` is off.
#[derive(Debug)]
pub struct Web;

impl Web {
    /// A client that can call no one.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self> {
        Ok(Self)
    }

    /// Says that `address` cannot be fetched here.
    ///
    /// # Errors
    /// Always; the hint names the feature, and where to put the file by hand.
    pub fn fetch(
        &self,
        address: &str,
        _token: Option<&str>,
        path: &Path,
        _at_most: u64,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let path = path.display();
        Err(missing(address).with_hint(format!(
            "{BUILD}\nor get {address} in another way and put it here as {path}"
        )))
    }
}

impl Web {
    /// Says that nobody is asked here.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn header(
        &self,
        address: &str,
        _token: Option<&str>,
        _name: &str,
    ) -> std::result::Result<Option<String>, Unanswered> {
        Err(Unanswered::Unreached(missing(address)))
    }

    /// The same.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn text(&self, address: &str) -> std::result::Result<Vec<u8>, Unanswered> {
        Err(Unanswered::Unreached(missing(address)))
    }
}

/// No client of the Hugging Face Hub, because the cargo feature `hub` is off.
#[derive(Debug)]
pub struct Hub;

impl Hub {
    /// A connection to no one.
    ///
    /// # Errors
    /// None.
    pub fn from_env() -> Result<Self> {
        Ok(Self)
    }

    /// Says that `repo` cannot be fetched here.
    ///
    /// # Errors
    /// Always; the hint names the feature, and what does without.
    pub fn fetch(
        &self,
        repo: &str,
        _revision: Option<&str>,
        _cache: &Cache,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf> {
        Err(missing(&format!("hf:{repo}")).with_hint(format!(
            "{BUILD}\nor get its files with `hf download {repo} --local-dir FOLDER` (pip install huggingface_hub) and name FOLDER instead"
        )))
    }
}

/// What lets a program without the web have what it cannot fetch, for people.
pub(crate) const REMEDY: &str = "a `moe-cl` that fetches, since this one was built without `--features hub`: \
    cargo install --path crates/moe-cli --features hub, or cargo run --release -p moe-cli --features hub -- …";

const BUILD: &str = "build it with them: cargo run --release -p moe-cli --features hub (a library: features = [\"hub\"] of moe-hub)";

fn missing(what: &str) -> SourceError {
    SourceError::new(format!(
        "{what} cannot be fetched: this program was built without the Hugging Face Hub and the web (cargo feature `hub`)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_in_is_named_with_both_ways_out() {
        let cache = Cache::at("unused");
        let hub = Hub::from_env().unwrap();
        let error = hub.fetch("a/b", None, &cache, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("hf:a/b cannot be fetched"));
        let hint = error.hint().unwrap();
        assert!(hint.contains("--features hub") && hint.contains("hf download a/b"));

        let web = Web::new().unwrap();
        let error = web.fetch(
            "https://x/y.csv",
            None,
            Path::new("d/y.csv"),
            1,
            &mut |_| (),
        );
        let error = error.unwrap_err();
        let hint = error.hint().unwrap();
        assert!(error.to_string().contains("feature `hub`"), "{error}");
        assert!(hint.contains("d/y.csv"), "{hint}");
        let asked = web.header("https://x", None, "etag").err();
        for why in [asked, web.text("https://x").err()].into_iter().flatten() {
            assert!(matches!(why, Unanswered::Unreached(_)), "{why:?}");
        }
    }
}
