//! The loop over the stream: prepare a task, take its steps, let the method remember, evaluate everything, save.

mod persist;
mod take_step;

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use burn::optim::ModuleOptimizer;

use super::{
    evaluate::{Scores, evaluate, gate_share},
    infer::{Answers, Inference, evaluation_features},
    prepare::{fresh_optimizer, prepare, untrained},
    result::{RunResult, peak_memory},
    state::Progress,
    step::trained_parameters,
    stream::{StageStep, Task, stage_steps},
};
use crate::{
    base::Base,
    config::Experiment,
    error::Result,
    events::{Event, Recorder},
    learner::Learner,
    methods::{Finished, Method, method},
    router::{Matrix, TaskRouter, pooled_features},
    seeds::{Purpose, Seeds},
    trunk::TrunkCache,
};

/// A run in progress.
pub(in crate::training) struct Run<'a> {
    experiment: &'a Experiment,
    base: &'a Base,
    tasks: &'a [Task],
    method: Box<dyn Method>,
    learner: Learner,
    optimizer: ModuleOptimizer,
    router: TaskRouter,
    /// What the router reads of the evaluation texts, once it was needed.
    evaluation_features: Option<Vec<Matrix>>,
    progress: Progress,
    checkpoints: PathBuf,
    /// Steps after which a task was complete: their checkpoints are kept.
    task_ends: Vec<usize>,
    /// Bytes of the method's memory in the last checkpoint.
    method_memory: u64,
    recorder: &'a mut dyn Recorder,
}

impl<'a> Run<'a> {
    /// A run before its first task.
    pub(in crate::training) fn new(
        experiment: &'a Experiment,
        base: &'a Base,
        tasks: &'a [Task],
        checkpoints: PathBuf,
        recorder: &'a mut dyn Recorder,
    ) -> Result<Self> {
        Ok(Self {
            method: method(&experiment.method, tasks.len()),
            learner: untrained(experiment, base, tasks.iter().map(|task| task.labels.len()))?,
            optimizer: fresh_optimizer(experiment),
            router: TaskRouter::new(&experiment.router, base.decoder.config())?,
            evaluation_features: None,
            progress: Progress {
                labels: tasks.iter().map(|task| task.labels.clone()).collect(),
                ..Progress::default()
            },
            experiment,
            base,
            tasks,
            checkpoints,
            // What there was before the first task is kept too.
            task_ends: vec![0],
            method_memory: 0,
            recorder,
        })
    }

    /// Name of the method, for tables.
    pub(in crate::training) fn method_name(&self) -> String {
        self.method.name()
    }

    /// Whether every task has been learnt.
    pub(in crate::training) fn is_complete(&self) -> bool {
        self.progress.task == self.tasks.len()
    }

    /// Optimiser steps of the whole run.
    pub(in crate::training) fn total_steps(&self) -> usize {
        (0..self.tasks.len())
            .map(|index| self.steps(index).len())
            .sum()
    }

    pub(in crate::training) fn record(&mut self, event: Event) -> Result<()> {
        Ok(self.recorder.record(&event)?)
    }

    fn prepare(&self, learner: Learner, task: usize) -> Learner {
        prepare(
            self.method.as_ref(),
            self.experiment,
            &self.base.decoder,
            learner,
            task,
        )
    }

    /// Row 0 of the matrix: every task as its training would find it.
    pub(in crate::training) fn measure_untrained(&mut self) -> Result<()> {
        self.evaluate_after(0)?;
        self.save()
    }

    /// Learns the current task, or what is left of it, and evaluates.
    pub(in crate::training) fn learn_task(&mut self) -> Result<()> {
        let index = self.progress.task;
        let steps = self.steps(index);
        let learnt = self.method.stage(index, self.tasks.len());
        if self.progress.step_in_task == 0 {
            self.learner = self.prepare(self.learner.clone(), index);
            self.optimizer = fresh_optimizer(self.experiment);
        }
        self.record(Event::TaskStarted {
            task: index,
            name: self.tasks[index].name.clone(),
            examples: self.tasks[learnt.clone()]
                .iter()
                .map(|task| task.train.len())
                .sum(),
            steps: steps.len(),
            trainable: self.trainable(learnt),
        })?;

        for position in self.progress.step_in_task..steps.len() {
            self.take_step(&steps[position], position, steps.len())?;
            let every = self.experiment.training.checkpoint_every;
            if every > 0
                && self.progress.step_in_task.is_multiple_of(every)
                && position + 1 < steps.len()
            {
                self.save()?;
            }
        }
        self.finish_task(index)
    }

    /// Optimiser steps of a stage.
    fn steps(&self, index: usize) -> Vec<StageStep> {
        let learnt = self.method.stage(index, self.tasks.len());
        stage_steps(self.experiment, self.tasks, index, learnt)
    }

    /// Parameters that move while the tasks `learnt` are, each counted once.
    fn trainable(&self, learnt: Range<usize>) -> u64 {
        let objective = self.experiment.training.objective;
        let parts = learnt.flat_map(|task| {
            trained_parameters(&self.learner, &self.method.trained(task), objective, task)
        });
        let sizes: BTreeMap<String, u64> = parts.map(|part| (part.name, part.size)).collect();
        sizes.values().sum()
    }

    /// The method takes what it needs, everything is evaluated, and the result is put on disk.
    fn finish_task(&mut self, index: usize) -> Result<()> {
        let learner = self.learner.clone();
        self.learner = self.method.finish(
            learner.clone(),
            Finished {
                base: learner.trunk(&self.base.decoder),
                task: index,
                examples: &self.tasks[index].train,
                objective: self.experiment.training.objective,
                batch_size: self.experiment.training.batch_size,
                collate: learner.collate(self.base.collate()),
                rng: Seeds(self.experiment.seed).rng(Purpose::Memory, index, 0),
            },
        );
        self.router.learn(&pooled_features(
            &self.base.decoder,
            self.base.pad(),
            self.router.layer(),
            &self.tasks[index].train_texts,
        ));
        self.progress.task = index + 1;
        self.progress.step_in_task = 0;
        self.evaluate_after(index + 1)?;
        self.task_ends.push(self.progress.step);
        self.save()
    }

    /// Adds the row `after` to the matrix. A task that has not been learnt yet is answered as its training would find it.
    fn evaluate_after(&mut self, after: usize) -> Result<()> {
        let ahead = (after..self.tasks.len()).fold(self.learner.clone(), |learner, task| {
            self.prepare(learner, task)
        });
        let scores = evaluate(
            self.experiment,
            self.base,
            self.method.as_ref(),
            &ahead,
            self.tasks,
            after,
            self.recorder,
        )?;
        self.progress.matrix.merge(after, &scores.accuracies);
        if let Some(message) = self.base.trunk.as_ref().and_then(TrunkCache::failure) {
            let message = message.to_owned();
            self.record(Event::Warning { message })?;
        }
        self.record(Event::Evaluated {
            after,
            scores: scores.accuracies.clone(),
            examples_per_second: scores.examples_per_second,
        })?;
        if after > 0 {
            self.infer_after(after, &ahead, &scores)?;
        }
        if let Some(learnt) = after.checked_sub(1)
            && let Some(shared) = gate_share(
                self.base,
                self.method.as_ref(),
                &ahead,
                &self.tasks[learnt],
                learnt,
            )
        {
            self.record(Event::LayerFigures {
                task: learnt,
                name: "gate/shared".into(),
                layers: shared,
            })?;
        }
        Ok(())
    }

    /// The same row when nobody says which task a text belongs to.
    fn infer_after(&mut self, after: usize, ahead: &Learner, given: &Scores) -> Result<()> {
        let (base, router, tasks) = (self.base, &self.router, self.tasks);
        let features = self
            .evaluation_features
            .get_or_insert_with(|| evaluation_features(base, router, tasks));
        let inference = Inference {
            experiment: self.experiment,
            base,
            method: self.method.as_ref(),
            learner: ahead,
            tasks,
            router,
            features,
        };
        let (inferred, right) = inference.evaluate(given)?;
        self.progress.answers = tasks
            .iter()
            .zip(&given.predictions)
            .zip(right)
            .map(|((task, predictions), inferred)| {
                Answers::new(&task.right(predictions), &inferred)
            })
            .collect();
        self.progress.inferred.push(inferred.clone());
        self.record(Event::Inferred {
            after,
            scores: inferred,
        })
    }

    /// The outcome of a complete run.
    pub(in crate::training) fn result(&self, seconds: f64) -> RunResult {
        RunResult {
            name: self.experiment.name.clone(),
            method: self.method.name(),
            seed: self.experiment.seed,
            tasks: self.tasks.iter().map(|task| task.name.clone()).collect(),
            summary: self.progress.matrix.summary(),
            matrix: self.progress.matrix.clone(),
            inferred: self.progress.inferred.clone(),
            answers: self.progress.answers.clone(),
            steps: self.progress.step,
            real_tokens: self.progress.real_tokens,
            training_seconds: self.progress.training_seconds,
            seconds,
            peak_memory: peak_memory(),
            method_memory: self.method_memory,
        }
    }
}
