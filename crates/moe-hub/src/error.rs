//! Why a base or data could not be had, and what the user can do about it.

use std::fmt::Display;
use std::path::Path;

/// A model or data file could not be fetched. `Display` is what happened; [`SourceError::hint`] is the way out.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    message: String,
    hint: Option<String>,
}

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, SourceError>;

impl SourceError {
    /// An error with nothing to advise.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// A failed file operation: what was tried (`read`, `write`, …), on which path, and why it failed.
    pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(format!("cannot {action} {}: {error}", path.display()))
    }

    /// Says first where it happened: `place: message`.
    pub fn within(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Adds the way out.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the user can do about it, possibly over several lines.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}
