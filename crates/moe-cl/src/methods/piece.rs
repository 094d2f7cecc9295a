//! What a method remembers besides the learner, as it is stored.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

/// A named piece of what a method remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name, unique in the method.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether a piece of this name never changes again.
    pub settled: bool,
}

impl Piece {
    /// A piece of JSON.
    pub(super) fn json(name: impl Into<String>, value: &impl Serialize) -> io::Result<Self> {
        Ok(Self {
            name: name.into(),
            bytes: serde_json::to_vec(value)?,
            settled: false,
        })
    }

    /// The error of a piece that is not this method's.
    pub(super) fn foreign(&self) -> io::Error {
        let message = format!("`{}` is no memory of this method", self.name);
        io::Error::new(io::ErrorKind::InvalidData, message)
    }
}

/// The one piece of JSON of a method that has no other; before its first task there is none.
///
/// # Errors
/// When there is another piece, or it is of another form.
pub(super) fn only_json<T: DeserializeOwned + Default>(
    memory: &[Piece],
    name: &str,
) -> io::Result<T> {
    match memory {
        [] => Ok(T::default()),
        [piece] if piece.name == name => Ok(serde_json::from_slice(&piece.bytes)?),
        [piece, ..] => Err(piece.foreign()),
    }
}
