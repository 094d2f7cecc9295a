//! From files of texts to batches of tokens.
//!
//! A file is read into [`Record`]s (`jsonl`, every error with its line), a task's files become [`TaskData`], an
//! [`Encoder`] turns records into [`Example`]s, [`epoch_batches`] orders them and a [`Batch`] holds the tensors.

mod batch;
mod encode;
mod error;
mod jsonl;
mod question;
mod record;
mod report;
mod task;

pub use burn_dataset::Dataset;

pub use batch::{Batch, Collate, epoch_batches};
pub use encode::{Encoder, Example};
pub use error::{DataError, RowPlace};
pub use jsonl::{Row, read, rows};
pub use question::prompt_tokens;
pub use record::{Format, Record, Role, Turn};
pub use report::DataReport;
pub use task::{Records, TaskData};
