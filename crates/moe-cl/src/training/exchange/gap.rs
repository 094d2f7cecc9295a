//! What it costs to answer by one adapter where a gate mixed several experts.

use burn::tensor::Tensor;
use moe_core::{
    generate::{CausalLm, Side, pad as pad_rows},
    model::KvCache,
};

use super::super::{evaluate::Evaluation, stream::Task, trained::Trained};
use crate::{
    data::Example,
    error::Result,
    events::Recorder,
    learner::Learner,
    methods::PerTask,
    predict::class_scores,
    task_model::{TaskChoice, TaskModel},
};

/// How far one adapter is from what it stands for, on texts of the task that are kept with the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// How many texts.
    pub texts: usize,
    /// Mean of the logits' absolute differences: those of the head's classes, or of the answer's first token.
    pub mean: f64,
    /// The largest of them.
    pub largest: f64,
    /// The task's score as the model answers.
    pub before: f64,
    /// The same by the adapter alone.
    pub after: f64,
}

impl Gap {
    /// What the adapter loses; nothing where it is the better one.
    pub fn lost(&self) -> f64 {
        (self.before - self.after).max(0.0)
    }
}

impl Trained<'_> {
    /// Root of the mean square of the logits' differences on the texts of a `task`, `index` of the model, with `alone` in the learner's place.
    pub(super) fn distance(&self, index: usize, task: &Task, alone: &Learner, most: usize) -> f64 {
        let (mut sum, mut count) = (0.0, 0);
        self.differences(index, task, alone, most, |difference| {
            sum += difference * difference;
            count += 1;
        });
        (sum / f64::from(count.max(1))).sqrt()
    }

    /// Measures the gap on all texts of a task.
    ///
    /// # Errors
    /// When a text cannot be answered.
    pub(super) fn gap(
        &self,
        index: usize,
        task: Task,
        alone: &Learner,
        recorder: &mut dyn Recorder,
    ) -> Result<Gap> {
        let (mut sum, mut count, mut largest) = (0.0, 0, 0.0_f64);
        self.differences(index, &task, alone, usize::MAX, |difference| {
            sum += difference;
            count += 1;
            largest = largest.max(difference);
        });
        let texts = task.evaluation.len();
        // One task, in its place among all.
        let split = self.experiment.evaluation.split;
        let others = (0..self.experiment.tasks.len()).filter(|it| *it != index);
        let mut tasks = others
            .map(|it| self.kept(it, split))
            .collect::<Result<Vec<Task>>>()?;
        tasks.insert(index, task);
        let own = self.evaluation(&tasks);
        let other = Evaluation {
            method: &PerTask,
            learner: alone,
            ..own
        };
        let mut score = |evaluation: Evaluation<'_>| -> Result<f64> {
            let scores = evaluation.given(&[index], self.learnt, recorder)?;
            Ok(scores.accuracies[index].unwrap_or(0.0))
        };
        Ok(Gap {
            texts,
            mean: sum / f64::from(count.max(1)),
            largest,
            before: score(own)?,
            after: score(other)?,
        })
    }

    fn differences(
        &self,
        index: usize,
        task: &Task,
        alone: &Learner,
        most: usize,
        mut take: impl FnMut(f64),
    ) {
        let examples: Vec<&Example> = task.evaluation.iter().take(most).collect();
        for examples in examples.chunks(self.experiment.evaluation.batch_size) {
            let own = TaskChoice::of(self.method.as_ref(), index);
            let before = self.logits(&self.learner, own, examples, task);
            let after = self.logits(alone, TaskChoice::of(&PerTask, index), examples, task);
            let differences = (before - after).abs().into_data();
            differences.iter::<f32>().for_each(|it| take(it.into()));
        }
    }

    /// `[texts, classes]` of the head, or `[texts, vocab_size]` of the first token of the answer.
    fn logits(
        &self,
        learner: &Learner,
        choice: TaskChoice<'_>,
        examples: &[&Example],
        task: &Task,
    ) -> Tensor<2> {
        if learner.head(choice.task).is_some() {
            return class_scores(self.base, learner, choice, examples, &task.answers);
        }
        let model = TaskModel::new(&self.base.decoder, learner, choice);
        let prompts: Vec<Vec<u32>> = examples.iter().map(|it| it.tokens.clone()).collect();
        let device = self.base.decoder.device();
        let (tokens, real) = pad_rows(&prompts, self.base.pad(), Side::Left, &device);
        let mut cache = KvCache::new(model.num_layers());
        let hidden = model.forward_cached(tokens, real, &mut cache);
        let [texts, seq, d_model] = hidden.dims();
        let last = hidden.slice([0..texts, seq - 1..seq]);
        model.logits(last.reshape([texts, d_model]))
    }
}
