//! From files of texts to batches of tokens.
//!
//! A file is read into [`Record`]s (`rows`, every error with its line), a task's files become [`TaskData`], an
//! [`Encoder`] turns records into [`Example`]s, [`epoch_batches`] orders them and a [`Batch`] holds the tensors.

mod batch;
mod conversation;
mod encode;
mod error;
mod example;
mod format;
mod json;
mod odd;
mod parquet;
mod problem;
mod question;
mod record;
mod report;
mod rows;
mod split;
mod table;
mod task;
mod writer;

pub use burn_dataset::Dataset;

pub use batch::{Batch, Collate, epoch_batches};
pub use encode::Encoder;
pub use error::{DataError, RowPlace};
pub use example::Example;
pub use format::Format;
pub use question::Form;
pub use record::{Record, Role, Turn};
pub use report::DataReport;
pub use rows::{Row, new_texts, read, rows};
pub use task::{Records, TaskData};
pub use writer::{Writer, Written};
