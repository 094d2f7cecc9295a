//! The stream of tasks, encoded: what is trained on and evaluated, in the order in which it comes.

use std::ops::Range;

use burn_dataset::Dataset;
use rand::seq::SliceRandom;

use crate::{
    base::Base,
    config::{Experiment, Split},
    data::{Encoder, Example, Record, TaskData, epoch_batches},
    error::Result,
    seeds::{Purpose, Seeds},
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
    /// The bare texts of [`Self::train`], which the router learns from.
    pub train_texts: Vec<Vec<u32>>,
    /// The bare texts of [`Self::evaluation`], which the router reads.
    pub evaluation_texts: Vec<Vec<u32>>,
    /// The records of [`Self::evaluation`], to be asked about in another task's words.
    pub evaluation_records: Vec<Record>,
    /// What the task asks about its texts.
    pub data: TaskData,
}

impl Task {
    /// Optimiser steps of one pass over the task: for each, its micro-batches of indices into [`Task::train`].
    fn epoch(&self, experiment: &Experiment, index: usize, epoch: usize) -> Vec<Vec<Vec<usize>>> {
        let training = &experiment.training;
        let lengths: Vec<usize> = self
            .train
            .iter()
            .map(|example| example.tokens.len())
            .collect();
        epoch_batches(&lengths, training.batch_size, experiment.seed, index, epoch)
            .chunks(training.accumulation)
            .map(<[_]>::to_vec)
            .collect()
    }

    /// Which of the evaluation examples `predictions` names rightly.
    pub fn right(&self, predictions: &[usize]) -> Vec<bool> {
        self.evaluation
            .iter()
            .zip(predictions)
            .map(|(example, prediction)| example.label == Some(*prediction))
            .collect()
    }

    /// Indices into [`Task::evaluation`], in batches of like length so that little is padded.
    pub fn evaluation_batches(&self, batch_size: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.evaluation.len()).collect();
        order.sort_by_key(|&index| self.evaluation[index].tokens.len());
        order.chunks(batch_size).map(<[_]>::to_vec).collect()
    }
}

/// One optimiser step of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageStep {
    /// The task whose examples are learnt.
    pub task: usize,
    /// Micro-batches of indices into [`Task::train`] of that task.
    pub micro_batches: Vec<Vec<usize>>,
}

/// Optimiser steps of stage `index`, which learns the tasks `learnt` ([`Method::stage`]); none where it learns none.
///
/// A function of its arguments alone, so that (stage, step) is all the cursor that a checkpoint needs. Where several tasks
/// are learnt together, each step has examples of one of them, and the steps of an epoch are shuffled.
///
/// [`Method::stage`]: crate::methods::Method::stage
pub fn stage_steps(
    experiment: &Experiment,
    tasks: &[Task],
    index: usize,
    learnt: Range<usize>,
) -> Vec<StageStep> {
    (0..experiment.training.epochs)
        .flat_map(|epoch| {
            let mut steps: Vec<StageStep> = learnt
                .clone()
                .flat_map(|task| {
                    let steps = tasks[task].epoch(experiment, task, epoch).into_iter();
                    steps.map(move |micro_batches| StageStep {
                        task,
                        micro_batches,
                    })
                })
                .collect();
            if learnt.len() > 1 {
                steps.shuffle(&mut Seeds(experiment.seed).rng(Purpose::Stage, index, epoch));
            }
            steps
        })
        .collect()
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
            train_texts: encoder.bare_texts(&data.train, &data)?,
            evaluation_texts: encoder.bare_texts(split, &data)?,
            // One that cannot be read was refused above.
            evaluation_records: split.iter().filter_map(|record| record.ok()).collect(),
            name: data.name.clone(),
            labels: data.labels.clone(),
            data,
        });
        warnings.extend(encoder.take_warnings());
    }
    Ok((tasks, warnings))
}
