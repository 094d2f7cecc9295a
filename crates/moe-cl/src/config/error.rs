//! What is wrong with an experiment file, and where.

use std::{
    fmt::{self, Display},
    path::PathBuf,
};

/// Where a value of an experiment was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a file; line and column from 1, the column in characters.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In an override, as it was written after `--set`.
    Set(String),
    /// Nowhere: a value is missing altogether, or the experiment was built in code.
    Whole(PathBuf),
}

impl Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Set(text) => write!(f, "--set {text}"),
            Self::Whole(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An experiment file that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: the experiment file cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A key or value is refused.
    #[error("{place}: {message}")]
    Refused {
        /// Where it stands.
        place: KeyPlace,
        /// What is wrong, what was expected and what to do.
        message: String,
    },
}
