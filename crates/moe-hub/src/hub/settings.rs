//! What the environment says of the Hub, in the words of `huggingface_hub`.

use std::env;
use std::fs;
use std::path::PathBuf;

use crate::error::{Result, SourceError};

/// The Hub, where nothing else is named.
const PUBLIC: &str = "https://huggingface.co";

/// Its address: `HF_ENDPOINT`, else the public one.
pub(super) fn endpoint() -> String {
    variable("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.into())
}

/// Whether only the cache is looked at: `HF_HUB_OFFLINE`.
pub(super) fn is_offline() -> bool {
    is_on("HF_HUB_OFFLINE")
}

/// What the Hub knows the user by: `HF_TOKEN`, else what `hf auth login` left (`HF_TOKEN_PATH`, `HF_HOME/token`), unless
/// `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
pub(super) fn token() -> Option<String> {
    let said = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
    let kept = || {
        let path = match variable("HF_TOKEN_PATH") {
            Some(path) => PathBuf::from(path),
            None => home().ok()?.join("token"),
        };
        let path = Some(path).filter(|path| path.is_file())?;
        fs::read_to_string(path).ok()
    };
    let token = said.or_else(|| {
        let wanted = !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        wanted.then(kept).flatten()
    })?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// The cache folder: `HF_HUB_CACHE`, else `hub` in `HF_HOME`.
///
/// # Errors
/// When nothing is set and the platform tells no home folder.
pub(super) fn cache() -> Result<PathBuf> {
    let named = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    named.map_or_else(|| Ok(home()?.join("hub")), |path| Ok(PathBuf::from(path)))
}

/// `HF_HOME`, else `huggingface` in `XDG_CACHE_HOME`, else in `~/.cache`.
fn home() -> Result<PathBuf> {
    if let Some(home) = variable("HF_HOME") {
        return Ok(home.into());
    }
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(directories::BaseDirs::new()?.home_dir().join(".cache")));
    cache.map(|cache| cache.join("huggingface")).ok_or_else(|| {
        SourceError::new("there is no home folder with a cache of the Hugging Face Hub")
            .with_hint("set HF_HOME to a folder that can be written")
    })
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_on(name: &str) -> bool {
    variable(name)
        .is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_ascii_lowercase()))
}
