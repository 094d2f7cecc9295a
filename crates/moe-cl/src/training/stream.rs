//! The stream of tasks, encoded: what is trained on and evaluated, in the order in which it comes.

use std::ops::Range;

use crate::{
    base::Base,
    config::{Experiment, Split},
    data::{Encoder, Example, TaskData, epoch_batches},
    error::Result,
};

/// One task of the stream, tokenised.
pub struct Task {
    /// Its name.
    pub name: String,
    /// Names of its labels; a label's index is its class.
    pub labels: Vec<String>,
    /// Examples to train on.
    pub train: Vec<Example>,
    /// Examples to evaluate on.
    pub evaluation: Vec<Example>,
    /// Tokens of each label as an answer; empty with classification heads.
    pub answers: Vec<Vec<u32>>,
}

impl Task {
    /// Optimiser steps of the task: for each, its micro-batches of indices into [`Task::train`].
    /// A function of its arguments alone, so that (task, step) is all the cursor that a checkpoint needs.
    pub fn steps(&self, experiment: &Experiment, index: usize) -> Vec<Vec<Vec<usize>>> {
        let training = &experiment.training;
        let lengths: Vec<usize> = self
            .train
            .iter()
            .map(|example| example.tokens.len())
            .collect();
        (0..training.epochs)
            .flat_map(|epoch| {
                let batches =
                    epoch_batches(&lengths, training.batch_size, experiment.seed, index, epoch);
                batches
                    .chunks(training.accumulation)
                    .map(<[_]>::to_vec)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Indices into [`Task::evaluation`], in batches of like length so that little is padded.
    pub fn evaluation_batches(&self, batch_size: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.evaluation.len()).collect();
        order.sort_by_key(|&index| self.evaluation[index].tokens.len());
        order.chunks(batch_size).map(<[_]>::to_vec).collect()
    }
}

/// Reads and encodes the tasks `which` of the experiment, with what the user should know about them.
///
/// # Errors
/// When data cannot be read, a task has no examples, or a text does not fit.
pub fn load(
    experiment: &Experiment,
    base: &Base,
    which: Range<usize>,
) -> Result<(Vec<Task>, Vec<String>)> {
    let mut encoder = Encoder::new(experiment, &base.tokenizer, base.chat.as_ref(), base.end());
    let mut warnings = Vec::new();
    let mut tasks = Vec::new();
    for index in which {
        let data = TaskData::load(experiment, index)?;
        warnings.extend(data.warnings.iter().cloned());
        let split = match experiment.evaluation.split {
            Split::Test => &data.test,
            Split::Dev => &data.dev,
        };
        tasks.push(Task {
            train: encoder.encode_all(&data.train, &data)?,
            evaluation: encoder.encode_all(split, &data)?,
            answers: encoder.answers(&data)?,
            name: data.name,
            labels: data.labels,
        });
        warnings.extend(encoder.take_warnings());
    }
    Ok((tasks, warnings))
}
