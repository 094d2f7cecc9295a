//! What is wrong with a data file, and where.

use std::{
    fmt::{self, Display},
    io,
    path::PathBuf,
};

/// Where a record stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowPlace {
    /// A line of a JSON Lines file, from 1.
    Line(usize),
    /// An entry of a JSON array, from 1.
    Entry(usize),
    /// A row of a Parquet file, from 1.
    Row(usize),
}

impl Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "{line}"),
            Self::Entry(entry) => write!(f, "entry {entry}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read.
    #[error("{}: the data cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A record is refused.
    #[error("{}:{place}: {message}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: RowPlace,
        /// What is wrong and what was expected.
        message: String,
    },
    /// A file as a whole is refused.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        message: String,
    },
    /// A task's data does not fit the experiment.
    #[error("task `{task}`: {message}")]
    Task {
        /// Name of the task.
        task: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// The tokenizer or the chat template refuses a text.
    #[error("task `{task}`: {error}")]
    Encoding {
        /// Name of the task.
        task: String,
        /// Why.
        error: moe_core::Error,
    },
}
