//! The tensor model of moe-cl: Llama-family decoders, their checkpoints, tokenizers and generation,
//! on [Burn](burn).
//!
//! A [`checkpoint::Checkpoint`] is a Hugging Face folder or a GGUF file, checked against its own
//! [`config::ModelConfig`] before a byte of weights is read.

pub mod atomic;
mod bounded;
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod error;
pub mod generate;
pub mod model;
pub mod parameters;
pub mod plain_file;
pub mod tokenizer;
pub mod upcycle;

pub use error::{Error, Result};

/// The README's example runs with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
