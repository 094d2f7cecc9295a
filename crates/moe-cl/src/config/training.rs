//! The `[training]` and `[evaluation]` tables.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::training::Schedule;

/// How a text is turned into a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// One linear classification head per task.
    #[default]
    Heads,
    /// The label is text that the model writes: loss on the answer's tokens, prediction by scoring whole labels.
    Instruction,
}

/// What a classification head reads of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The hidden state of its last token, as the MoE-CL authors do.
    Last,
    /// The mean of its tokens' hidden states, which says more (docs/RESULTS.md).
    #[default]
    Mean,
}

/// The part of a task's data that scores are measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For choosing settings.
    Dev,
    /// For reporting.
    #[default]
    Test,
}

/// How each task is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// How a text is turned into a label.
    pub objective: Objective,
    /// What the heads read of a text.
    pub pooling: Pooling,
    /// Passes over each task's training examples.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: usize,
    /// Texts per forward and backward pass.
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
    /// Batches of one optimiser step, which is the step of one batch with all of their texts.
    #[schemars(range(min = 1, max = 65_536))]
    pub accumulation: usize,
    /// Largest learning rate of AdamW.
    #[schemars(range(max = 1e30), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Shape of the learning rate over each task's steps, after the warm-up.
    pub schedule: Schedule,
    /// Share of each task's steps, in [0, 1), during which the learning rate grows from 0.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub warmup_ratio: f64,
    /// Largest norm of all gradients together; larger ones are scaled down to it. Absent: no clipping.
    #[schemars(range(max = 1e30), extend("exclusiveMinimum" = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Decoupled weight decay of AdamW.
    #[schemars(range(min = 0, max = 1e6))]
    pub weight_decay: f64,
    /// Optimiser steps between two checkpoints.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub checkpoint_every: usize,
    /// Checkpoints after a task that are kept, the newest so many: to those the model can be rolled back.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub keep: usize,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            objective: Objective::Heads,
            pooling: Pooling::Mean,
            epochs: 2,
            batch_size: 8,
            accumulation: 1,
            learning_rate: 2e-3,
            schedule: Schedule::Linear,
            warmup_ratio: 0.0,
            clip_norm: None,
            weight_decay: 0.01,
            checkpoint_every: 50,
            keep: 16,
        }
    }
}

/// How scores are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Texts per forward pass.
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
    /// The part of each task's data that is scored.
    pub split: Split,
    /// All tasks are scored after every so many of them, and after the last; in between the one just learnt alone.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub every: usize,
    /// Most tasks that are scored after a task, besides the one just learnt: those first whose last score is the oldest. Absent: all.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<usize>,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            batch_size: 32,
            split: Split::Test,
            every: 1,
            tasks: None,
        }
    }
}
