//! What a run would do, without doing it: sizes, steps, and a time that is extrapolated from one step taken here and thrown away.

use std::{fmt, time::Instant};

use burn::module::Module;
use serde::Serialize;

use super::{
    evaluate::Evaluation,
    memory::peak_memory,
    prepare::{fresh_optimizer, prepare, untrained},
    step::{StepInput, optimizer_step, trained_parameters},
    stream::{self, Task},
};
use crate::{
    base::Base,
    config::Experiment,
    data::Example,
    directory::TaskSettings,
    error::{Error, Result},
    learner::Learner,
    methods::method,
    task_model::TaskChoice,
};

/// A run that has not been made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Method and mode.
    pub method: String,
    /// Parameters of the frozen base.
    pub base_parameters: u64,
    /// What each task would train.
    pub tasks: Vec<TaskPlan>,
    /// Largest resident memory in bytes after one real step, where the platform tells.
    pub memory: Option<u64>,
    /// Seconds of training, extrapolated from one step by real tokens.
    pub training_seconds: f64,
    /// Seconds of evaluation, extrapolated from one batch by real tokens.
    pub evaluation_seconds: f64,
    /// What the user should know about the data.
    pub warnings: Vec<String>,
}

/// What one task would train.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskPlan {
    /// Its name.
    pub name: String,
    /// Training examples.
    pub examples: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// Parameters that move: active experts, gate and head.
    pub trainable: u64,
    /// Parameters that the task adds and the checkpoint keeps for good.
    pub added: u64,
}

/// Plans the run of `experiment` on `base`.
///
/// # Errors
/// When data or configuration are refused, exactly as the run would refuse them.
pub fn plan(experiment: &Experiment, base: &Base) -> Result<Plan> {
    let mut warnings = Vec::new();
    let (seed, split) = (experiment.seed, experiment.evaluation.split);
    let load = |(index, config)| {
        let settings = TaskSettings::of(experiment, config);
        Task::load(config, &settings, split, (seed, index), base, &mut warnings)
    };
    let tasks = experiment.tasks.iter().enumerate().map(load);
    let tasks = tasks.collect::<Result<Vec<Task>>>()?;
    let method = method(&experiment.method, tasks.len());
    let mut learner = untrained(experiment, &base.decoder)?;
    let mut plans = Vec::new();
    let mut seconds_per_token = 0.0;
    for (index, task) in tasks.iter().enumerate() {
        let before = Counted::of(&learner);
        let learnt = method.stage(index, tasks.len());
        while learner.tasks.len() < learnt.end.max(index + 1) {
            let next = learner.tasks.len();
            let form = tasks[next].form(next);
            learner = prepare(method.as_ref(), seed, &base.decoder, learner, form);
        }
        let steps = stream::stage_steps(seed, &tasks, index, learnt);
        let parts = trained_parameters(method.as_ref(), &learner, index);
        plans.push(TaskPlan {
            name: task.name.clone(),
            examples: task.train.len(),
            steps: steps.len(),
            trainable: parts.iter().map(|part| part.size).sum(),
            added: before.added_since(&learner),
        });
        if index == 0 {
            let first = &steps[0];
            let micro_batches: Vec<Vec<&Example>> = first
                .micro_batches
                .iter()
                .map(|batch| batch.iter().map(|&i| &tasks[first.task].train[i]).collect())
                .collect();
            let input = StepInput {
                settings: &task.settings,
                seed,
                base: &base.decoder,
                method: method.as_ref(),
                task: first.task,
                micro_batches: &micro_batches,
                step: 1,
                learning_rate: experiment.training.learning_rate,
                collate: base.collate(),
            };
            let start = Instant::now();
            let mut optimizer = fresh_optimizer(&task.settings.training);
            let stepped = optimizer_step(&input, learner.clone(), &mut optimizer);
            let (_, figures) = stepped.map_err(|what| Error::Diverged {
                task: tasks[first.task].name.clone(),
                step: 1,
                what,
            })?;
            seconds_per_token = start.elapsed().as_secs_f64() / figures.real_tokens as f64;
        }
    }
    let training_tokens: usize =
        tasks.iter().map(|task| tokens(&task.train)).sum::<usize>() * experiment.training.epochs;
    let evaluation_tokens: usize = tasks.iter().map(|task| tokens(&task.evaluation)).sum();
    // One evaluation before the first task and one after each.
    let evaluations = (tasks.len() + 1) as f64;
    let evaluation_seconds = time_evaluation(
        experiment,
        base,
        &tasks[0],
        &learner.valid(),
        method.as_ref(),
    )? * evaluation_tokens as f64
        * evaluations;
    Ok(Plan {
        method: method.name(),
        base_parameters: base.decoder.num_params() as u64,
        tasks: plans,
        memory: peak_memory(),
        training_seconds: seconds_per_token * training_tokens as f64,
        evaluation_seconds,
        warnings,
    })
}

/// What a learner consists of, so that what is added to it is counted without counting all of it again.
struct Counted {
    experts: usize,
    gates: usize,
    heads: usize,
    /// Parameters of the method's own.
    own: usize,
}

impl Counted {
    fn of(learner: &Learner) -> Self {
        Self {
            experts: learner.catalogue.experts().len(),
            gates: learner.catalogue.gates().len(),
            heads: learner.heads.len(),
            own: learner.own.num_params(),
        }
    }

    /// Parameters that the learner has and did not have then.
    fn added_since(&self, learner: &Learner) -> u64 {
        let catalogue = &learner.catalogue;
        let experts = catalogue.experts()[self.experts..].iter();
        let gates = catalogue.gates()[self.gates..].iter();
        let heads = learner.heads[self.heads..].iter();
        let added = experts.map(Module::num_params).sum::<usize>()
            + gates.map(Module::num_params).sum::<usize>()
            + heads.map(Module::num_params).sum::<usize>()
            + learner.own.num_params()
            - self.own;
        added as u64
    }
}

/// Seconds per real token of a prediction.
fn time_evaluation(
    experiment: &Experiment,
    base: &Base,
    task: &Task,
    learner: &Learner,
    method: &dyn crate::methods::Method,
) -> Result<f64> {
    let examples: Vec<&Example> = task
        .evaluation
        .iter()
        .take(experiment.evaluation.batch_size)
        .collect();
    if examples.is_empty() {
        return Ok(0.0);
    }
    let start = Instant::now();
    let evaluation = Evaluation {
        batch_size: examples.len(),
        base,
        method,
        learner,
        tasks: std::slice::from_ref(task),
    };
    evaluation.answers(TaskChoice::of(method, 0), &examples)?;
    let tokens: usize = examples.iter().map(|example| example.tokens.len()).sum();
    Ok(start.elapsed().as_secs_f64() / tokens as f64)
}

fn tokens(examples: &[Example]) -> usize {
    examples.iter().map(|example| example.tokens.len()).sum()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let million = |count: u64| count as f64 / 1e6;
        writeln!(
            f,
            "{} on a frozen base of {:.1} M parameters",
            self.method,
            million(self.base_parameters)
        )?;
        let width = self
            .tasks
            .iter()
            .map(|task| task.name.len())
            .max()
            .unwrap_or(4)
            .max(4);
        writeln!(
            f,
            "{:width$}  examples  steps  trained (M)  added (M)",
            "task"
        )?;
        for task in &self.tasks {
            writeln!(
                f,
                "{:width$}  {:8}  {:5}  {:11.3}  {:9.3}",
                task.name,
                task.examples,
                task.steps,
                million(task.trainable),
                million(task.added)
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if let Some(memory) = self.memory {
            writeln!(
                f,
                "memory: {:.2} GB (measured over one step)",
                memory as f64 / 1e9
            )?;
        }
        write!(
            f,
            "time: {:.0} s training + {:.0} s evaluation (from one step and one batch on this machine)",
            self.training_seconds, self.evaluation_seconds
        )
    }
}
