//! The loop over the stream: prepare a task, take its steps, let the method remember, score, save.

mod finish;
mod persist;
mod restore;
mod score;
mod shelf;
mod stored;
mod take_step;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use burn::optim::ModuleOptimizer;
use moe_lora::Routing;

use self::stored::StoredParts;
use super::{
    infer::Known,
    prepare::{fresh_optimizer, prepare, untrained},
    result::RunResult,
    step::trained_parameters,
    stream::{StageStep, Task, stage_steps},
};
use crate::{
    base::Base,
    config::Experiment,
    directory::{Checkpoints, Progress, Stage, TaskState, Times},
    error::{Error, Result},
    events::{Event, Recorder},
    learner::Learner,
    methods::{Method, method},
    recognizer::{Matrix, TaskRecognizer},
};

/// What a task has moved while it was learnt.
#[derive(Default)]
struct Moved {
    /// The task; none where no step was taken.
    task: Option<usize>,
    /// The experts and gates that were trained, or changed when the task was finished.
    experts: Vec<Routing>,
}

/// A run in progress.
pub(in crate::training) struct Run<'a> {
    /// Settings of the run, without its tasks.
    experiment: Experiment,
    base: &'a Base,
    /// The tasks that are known.
    tasks: Vec<Task>,
    /// What is stored of each.
    states: Vec<TaskState>,
    /// Tasks that imported experts answer for, carried along as they are.
    imported: Vec<TaskState>,
    method: Box<dyn Method>,
    learner: Learner,
    optimizer: ModuleOptimizer,
    recognizer: TaskRecognizer,
    /// What the recognizer reads of the texts that are scored, per task, once it was needed.
    features: Vec<Matrix>,
    progress: Progress,
    times: Times,
    /// Scores so far, the untrained model's first.
    stages: Vec<Stage>,
    /// What is known of each task's texts.
    known: Vec<Known>,
    /// Which tasks' answers the task learnt last has left as they were.
    still: Vec<bool>,
    checkpoints: Checkpoints,
    /// Where the parts are that have not moved since they were written.
    stored: StoredParts,
    recorder: &'a mut dyn Recorder,
}

impl<'a> Run<'a> {
    /// A run before its first task, for the settings of `experiment`.
    pub(in crate::training) fn new(
        experiment: &Experiment,
        base: &'a Base,
        tasks: Vec<(Task, TaskState)>,
        checkpoints: Checkpoints,
        recorder: &'a mut dyn Recorder,
    ) -> Result<Self> {
        let (tasks, states): (Vec<Task>, Vec<TaskState>) = tasks.into_iter().unzip();
        Ok(Self {
            method: method(&experiment.method, tasks.len()),
            learner: untrained(experiment, &base.decoder)?,
            optimizer: fresh_optimizer(&experiment.training),
            recognizer: TaskRecognizer::new(&experiment.router, base.decoder.config())?,
            features: Vec::new(),
            progress: Progress::default(),
            times: Times::default(),
            stages: Vec::new(),
            known: vec![Known::default(); tasks.len()],
            still: Vec::new(),
            experiment: Experiment {
                tasks: Vec::new(),
                ..experiment.clone()
            },
            base,
            tasks,
            states,
            imported: Vec::new(),
            checkpoints,
            stored: StoredParts::default(),
            recorder,
        })
    }

    /// Name of the method, for tables.
    pub(in crate::training) fn method_name(&self) -> String {
        self.method.name()
    }

    /// Names of the tasks that are known.
    pub(in crate::training) fn task_names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.name.clone()).collect()
    }

    /// Whether every task has been learnt.
    pub(in crate::training) fn is_complete(&self) -> bool {
        self.progress.task == self.tasks.len()
    }

    /// Where the run stands.
    pub(in crate::training) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Optimiser steps of the whole run, as far as its tasks are known.
    pub(in crate::training) fn total_steps(&self) -> usize {
        let done = self.states.iter().filter_map(|state| state.learnt.as_ref());
        let ahead = (self.progress.task..self.tasks.len()).map(|index| self.steps(index).len());
        done.map(|learnt| learnt.steps).sum::<usize>() + ahead.sum::<usize>()
    }

    pub(in crate::training) fn record(&mut self, event: Event) -> Result<()> {
        Ok(self.recorder.record(&event)?)
    }

    fn prepare(&self, learner: Learner, index: usize) -> Learner {
        prepare(
            self.method.as_ref(),
            self.experiment.seed,
            &self.base.decoder,
            learner,
            self.tasks[index].form(index),
        )
    }

    /// Row 0 of the matrix: every task as its training would find it.
    pub(in crate::training) fn measure_untrained(&mut self) -> Result<()> {
        self.score_all(0, &Moved::default())?;
        self.save()
    }

    /// Scores the tasks from `first` on, which have arrived since the last task was learnt, before their first step.
    pub(in crate::training) fn measure_arrived(&mut self, first: usize) -> Result<()> {
        let arrived: Vec<usize> = (first..self.tasks.len()).collect();
        // In the middle of a task there is no row that they would belong to.
        match arrived.is_empty() || self.progress.step_in_task > 0 {
            true => Ok(()),
            false => self.score(self.progress.task, &arrived),
        }
    }

    /// Learns the current task, or what is left of it, and scores what there is. Nothing is on disk of the finished task yet
    /// ([`Self::keep_task`]).
    pub(in crate::training) fn learn_task(&mut self) -> Result<()> {
        let index = self.progress.task;
        let steps = self.steps(index);
        let learnt = self.method.stage(index, self.tasks.len());
        if self.progress.step_in_task == 0 {
            while self.learner.tasks.len() < learnt.end.max(index + 1) {
                let next = self.learner.tasks.len();
                self.learner = self.prepare(self.learner.clone(), next);
            }
            self.optimizer = fresh_optimizer(&self.tasks[index].settings.training);
        }
        self.record(Event::TaskStarted {
            task: index,
            name: self.tasks[index].name.clone(),
            examples: self.tasks[learnt.clone()]
                .iter()
                .map(|task| task.train.len())
                .sum(),
            steps: steps.len(),
            trainable: self.trainable(learnt.clone()),
        })?;

        let every = self.tasks[index].settings.training.checkpoint_every;
        let mut met = BTreeSet::new();
        for position in self.progress.step_in_task..steps.len() {
            let first = met.insert(steps[position].task);
            self.take_step(&steps[position], (position, steps.len()), first)?;
            if position + 1 == steps.len() {
                // What was learnt is on disk before it is scored, which may take longer than learning it.
                self.forget_moved(learnt.clone());
                self.write()?;
            } else if self.progress.step_in_task.is_multiple_of(every) {
                self.forget_moved(learnt.clone());
                self.save()?;
            }
        }
        self.forget_moved(learnt);
        self.finish_task(index, steps.len())
    }

    /// Puts what was learnt since the last checkpoint on disk, for a run that is to stop here.
    pub(in crate::training) fn stop(&mut self) -> Result<Error> {
        let step = self.progress.step;
        // Between tasks, and while one is scored, the last checkpoint has it all.
        if self.progress.step_in_task > 0 {
            self.forget_moved(self.method.stage(self.progress.task, self.tasks.len()));
            self.write()?;
        }
        Ok(Error::Stopped { step })
    }

    /// What learning `tasks` moves is to be stored anew.
    fn forget_moved(&mut self, tasks: Range<usize>) {
        if self.method.trains_earlier_heads() {
            self.stored.forget_heads();
        }
        self.stored.forget(&self.learner, tasks);
    }

    /// Puts the task that was just learnt on disk: from here on the model has it.
    pub(in crate::training) fn keep_task(&mut self) -> Result<()> {
        self.save()?;
        self.shelve();
        Ok(())
    }

    /// Optimiser steps of a stage.
    fn steps(&self, index: usize) -> Vec<StageStep> {
        let learnt = self.method.stage(index, self.tasks.len());
        stage_steps(self.experiment.seed, &self.tasks, index, learnt)
    }

    /// Parameters that move while the tasks `learnt` are, each counted once.
    fn trainable(&self, learnt: Range<usize>) -> u64 {
        let prepared = learnt.start..learnt.end.min(self.learner.tasks.len());
        let parts =
            prepared.flat_map(|task| trained_parameters(self.method.as_ref(), &self.learner, task));
        let sizes: BTreeMap<String, u64> = parts.map(|part| (part.name, part.size)).collect();
        sizes.values().sum()
    }

    /// The outcome so far.
    pub(in crate::training) fn result(&self) -> RunResult {
        let learnt = 0..self.progress.task;
        let metrics = self.tasks.iter().map(|task| task.data.metric);
        RunResult::so_far(
            &self.experiment,
            (&self.progress, &self.times),
            (self.task_names(), metrics.collect()),
            self.stages.clone(),
            learnt.map(|task| self.known[task].texts.clone()).collect(),
            self.stored.memory_bytes(),
        )
    }
}
