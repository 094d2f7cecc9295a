//! Continual learning of language models with mixtures of LoRA experts: tasks, data, methods, scheduler, metrics, resume.

pub mod config;
pub mod data;
pub mod directory;
pub mod events;
pub mod metrics;
pub mod probes;
pub mod recognizer;

mod base;
mod checked;
mod error;
mod head;
mod learner;
pub mod methods;
mod objective;
mod predict;
mod seeds;
mod task_model;
mod task_vectors;
pub mod training;
mod trunk;

pub use base::{Base, BaseIdentity};
pub use error::{Error, Result};
pub use head::Head;
pub use learner::{Learner, TaskExperts};
pub use objective::{cross_entropy, task_loss};
pub use predict::{class_scores, label_scores, predict, write_answers};
pub use seeds::{Purpose, Seeds};
pub use task_model::{TaskChoice, TaskModel};
pub use task_vectors::TaskVectors;
pub use trunk::{Trunk, TrunkCache};

/// The README's example runs with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
