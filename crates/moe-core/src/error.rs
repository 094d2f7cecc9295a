//! What can go wrong between a path and a model that answers.

use std::io;
use std::path::{Path, PathBuf};

/// Result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every message names the file, then the key or tensor, what was expected there, and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open, read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what its name promises.
    #[error("{}: {message}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A setting of a model is missing, wrong or not supported.
    #[error("{}: `{key}`: {message}", path.display())]
    Config {
        /// The `config.json` or `.gguf` file.
        path: PathBuf,
        /// The key as it is written in that file.
        key: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// One tensor of a checkpoint is missing, damaged or of another kind than needed.
    #[error("{}: tensor `{tensor}`: {message}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor as it is named in that file.
        tensor: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A tokenizer cannot be built or cannot encode a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template does not parse or refuses a conversation.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// A device is unknown, not compiled in, or not there.
    #[error("device: {0}")]
    Device(String),
    /// How tokens are chosen is out of range.
    #[error("`{name}` is {value}; it must be {rule}")]
    Sampling {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
    /// A number format of base models is unknown.
    #[error("`{name}` is no number format of a base; use f32, bf16 or stored")]
    BaseDtype {
        /// What was asked for.
        name: String,
    },
}

impl Error {
    /// For `map_err`: attaches the path that an [`io::Error`] leaves out.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// An [`Error::File`].
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    /// An [`Error::Config`].
    pub fn config(path: &Path, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config {
            path: path.to_path_buf(),
            key: key.into(),
            message: message.into(),
        }
    }

    /// An [`Error::Tensor`].
    pub fn tensor(path: &Path, tensor: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_path_buf(),
            tensor: tensor.into(),
            message: message.into(),
        }
    }
}
