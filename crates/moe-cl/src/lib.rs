//! Continual learning of language models with mixtures of LoRA experts: tasks, data, methods, scheduler, metrics, resume.

pub mod events;
pub mod metrics;
