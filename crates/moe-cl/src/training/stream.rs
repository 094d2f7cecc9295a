//! The stream of tasks, encoded: what is trained on and evaluated, in the order in which it comes.

use std::ops::Range;

use burn_dataset::Dataset;
use rand::seq::SliceRandom;

use super::prepare::TaskForm;
use crate::{
    base::Base,
    config::{Split, TaskConfig},
    data::{Encoder, Example, Record, Records, TaskData, epoch_batches},
    directory::{TaskSettings, TrainingData},
    error::Result,
    metrics::{Answered, TextMetric, TextScore},
    seeds::{Purpose, Seeds},
};

/// One task of the stream, tokenised.
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: TaskSettings,
    /// Names of its labels; a label's index is its class. Empty where answers are free text.
    pub labels: Vec<String>,
    /// Examples to train on; none of a task that was learnt before.
    pub train: Vec<Example>,
    /// Examples to evaluate on.
    pub evaluation: Vec<Example>,
    /// Tokens of each label as an answer; empty with classification heads.
    pub answers: Vec<Vec<u32>>,
    /// The bare texts of [`Self::train`], which the recognizer learns from.
    pub train_texts: Vec<Vec<u32>>,
    /// The bare texts of [`Self::evaluation`], which the recognizer reads.
    pub evaluation_texts: Vec<Vec<u32>>,
    /// The records of [`Self::evaluation`], to be asked about in another task's words.
    pub evaluation_records: Vec<Record>,
    /// What the task asks about its texts.
    pub data: TaskData,
}

impl Task {
    /// Reads and encodes the `index`-th task of a run of that `seed` from its files; `split` is evaluated on. What the user should
    /// know goes to `warnings`.
    ///
    /// # Errors
    /// When data cannot be read, a task has no examples, or a text does not fit.
    pub fn load(
        config: &TaskConfig,
        settings: &TaskSettings,
        split: Split,
        (seed, index): (u64, usize),
        base: &Base,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let mut data = TaskData::load_task(config, settings, split, seed, index)?;
        data.room = encoder(settings, base).longest_answer(&data)?;
        warnings.extend(data.warnings.iter().cloned());
        let (asked, positions) = (
            settings.data.max_tokens,
            base.decoder.config().max_position_embeddings,
        );
        let message = format!(
            "data.max_tokens = {asked} is more than the {positions} positions that the base was made for: what stands beyond them is read badly"
        );
        if asked > positions && !warnings.contains(&message) {
            warnings.push(message);
        }
        Self::encode(data, settings, split, base, warnings)
    }

    /// Encodes a task's records.
    ///
    /// # Errors
    /// When a text does not fit.
    pub fn encode(
        data: TaskData,
        settings: &TaskSettings,
        split: Split,
        base: &Base,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let mut encoder = encoder(settings, base);
        let rows = rows(&data, split);
        let task = Self {
            train: encoder.learnt(&data)?,
            evaluation: encoder.asked(rows, &data)?,
            answers: encoder.answers(&data)?,
            train_texts: encoder.bare_texts(&data.train, &data)?,
            evaluation_texts: encoder.bare_texts(rows, &data)?,
            evaluation_records: rows.iter().flatten().map(|row| row.record).collect(),
            name: data.name.clone(),
            settings: settings.clone(),
            labels: data.labels.clone(),
            data,
        };
        warnings.extend(encoder.take_warnings());
        Ok(task)
    }

    /// What has to be known of it to make room for it, as the `task`-th to be learnt.
    pub fn form(&self, task: usize) -> TaskForm<'_> {
        TaskForm {
            task,
            name: &self.name,
            classes: self.labels.len(),
            settings: &self.settings,
        }
    }

    /// What it is learnt from.
    pub fn training_data(&self) -> TrainingData {
        let file = &self.data.train_file;
        TrainingData {
            file: file.canonicalize().unwrap_or_else(|_| file.clone()),
            sha256: self.data.hash(),
            rows: self.train.len(),
        }
    }

    /// Optimiser steps of one pass over the task: for each, its micro-batches of indices into [`Task::train`]. The texts of a step
    /// are drawn together and then cut, so that they are the same however they are cut.
    fn epoch(&self, seed: u64, index: usize, epoch: usize) -> Vec<Vec<Vec<usize>>> {
        let training = &self.settings.training;
        let lengths: Vec<usize> = self
            .train
            .iter()
            .map(|example| example.tokens.len())
            .collect();
        let texts_per_step = training.batch_size.saturating_mul(training.accumulation);
        epoch_batches(&lengths, texts_per_step, seed, index, epoch)
            .iter()
            .map(|texts| texts.chunks(training.batch_size).map(<[_]>::to_vec))
            .map(Iterator::collect)
            .collect()
    }

    /// Score of an answer to the evaluation text `text`: whether it is the label's name, or what the task's metric says of it.
    pub fn score(&self, text: usize, answer: &str) -> TextScore {
        let record = &self.evaluation_records[text];
        match self.data.metric {
            None => TextScore::Share(f64::from(u8::from(answer == record.answer()))),
            Some(metric) => metric.score(&Answered {
                source: &record.bare_text(),
                prediction: answer,
                references: &[record.answer()],
            }),
        }
    }

    /// The task's score, in [0, 1], of those of its texts; none of nothing.
    pub fn total(&self, texts: &[TextScore]) -> Option<f64> {
        // Right and wrong answers are shares too.
        let metric = self.data.metric.unwrap_or(TextMetric::ExactMatch);
        metric.total(texts)
    }

    /// Indices into [`Task::evaluation`], in batches of like length so that little is padded.
    pub fn evaluation_batches(&self, batch_size: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.evaluation.len()).collect();
        order.sort_by_key(|&index| self.evaluation[index].tokens.len());
        order.chunks(batch_size).map(<[_]>::to_vec).collect()
    }
}

/// The encoder of a task of these settings.
pub(super) fn encoder<'a>(settings: &TaskSettings, base: &'a Base) -> Encoder<'a> {
    Encoder::new(settings, base.writer())
}

/// The rows of a split.
pub(super) fn rows(data: &TaskData, split: Split) -> &Records {
    match split {
        Split::Test => &data.test,
        Split::Dev => &data.dev,
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
    seed: u64,
    tasks: &[Task],
    index: usize,
    learnt: Range<usize>,
) -> Vec<StageStep> {
    let epochs = tasks[index].settings.training.epochs;
    (0..epochs)
        .flat_map(|epoch| {
            let mut steps: Vec<StageStep> = learnt
                .clone()
                .flat_map(|task| {
                    let steps = tasks[task].epoch(seed, task, epoch).into_iter();
                    steps.map(move |micro_batches| StageStep {
                        task,
                        micro_batches,
                    })
                })
                .collect();
            if learnt.len() > 1 {
                steps.shuffle(&mut Seeds(seed).rng(Purpose::Stage, index, epoch));
            }
            steps
        })
        .collect()
}
