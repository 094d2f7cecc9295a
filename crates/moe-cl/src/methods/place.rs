//! Where a batch stands in its optimiser step: what gradients that are accumulated add up to.

use super::Step;
use crate::{
    config::Objective,
    data::{Batch, Example},
};

/// The place of a micro-batch in its optimiser step.
///
/// The loss of a step is a mean over all of its texts, or over all tokens of their answers, and a micro-batch gives its part of
/// it: the mean over its own, times the share of them that it has. What a step has once, whatever its size (rehearsal, stand-ins,
/// penalties), goes with the first. So losses and gradients of the parts add up to those of one large batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it is the first micro-batch.
    pub first: bool,
    /// Texts of the whole step.
    pub texts: usize,
    /// Tokens of the answers of the whole step.
    pub answer_tokens: usize,
}

impl Place {
    /// The first place in a step of these micro-batches.
    pub fn first_of(micro_batches: &[Vec<&Example>]) -> Self {
        let examples = || micro_batches.iter().flatten();
        Self {
            first: true,
            texts: examples().count(),
            answer_tokens: examples().map(|example| example.answer_tokens()).sum(),
        }
    }

    /// Of a batch that is a whole step.
    pub fn alone(batch: &Batch) -> Self {
        Self {
            first: true,
            texts: batch.lengths.len(),
            answer_tokens: batch.answer_tokens.len(),
        }
    }
}

impl Step<'_> {
    /// The batch's share of the texts of its optimiser step: the weight of a mean over texts.
    pub fn share_of_texts(&self) -> f64 {
        self.batch.lengths.len() as f64 / self.place.texts as f64
    }

    /// The batch's share of what the task's loss is a mean over: the weight of that loss.
    pub fn share(&self) -> f64 {
        match self.learner.objective(self.task) {
            Objective::Heads => self.share_of_texts(),
            Objective::Instruction => {
                self.batch.answer_tokens.len() as f64 / self.place.answer_tokens as f64
            }
        }
    }
}
