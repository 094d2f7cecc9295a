//! What is wrong with a record once it is encoded.

use super::{DataError, Row, TaskData};

/// What is wrong with a record, before it is said which.
pub(super) enum Problem {
    /// It teaches nothing, or does not fit.
    Says(String),
    /// The tokenizer or the template refuses it.
    Encoding(moe_core::Error),
}

impl From<moe_core::Error> for Problem {
    fn from(error: moe_core::Error) -> Self {
        Self::Encoding(error)
    }
}

impl Problem {
    /// Of no record in particular.
    pub(super) fn of_task(self, task: &TaskData) -> DataError {
        let task = task.name.clone();
        match self {
            Self::Says(message) => DataError::Task { task, message },
            Self::Encoding(error) => DataError::Encoding { task, error },
        }
    }
}

/// Names the record that a problem is with.
pub(super) trait At<T> {
    /// # Errors
    /// The problem, with the place of the record.
    fn at(self, row: &Row, task: &TaskData) -> Result<T, DataError>;
}

impl<T> At<T> for Result<T, Problem> {
    fn at(self, row: &Row, task: &TaskData) -> Result<T, DataError> {
        self.map_err(|problem| match problem {
            Problem::Says(message) => row.refuse(message, &task.name),
            Problem::Encoding(error) => row.refuse(error.to_string(), &task.name),
        })
    }
}
