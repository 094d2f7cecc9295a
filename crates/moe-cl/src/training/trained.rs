//! A learner read back from a run directory, for evaluation and generation.

use std::path::Path;

use burn::module::Module;
use moe_lora::Routing;

use super::{
    evaluate::{Scores, evaluate},
    prepare::{prepare, untrained},
    state::{self, Saved},
    stream::{self, Task},
};
use crate::{
    answering::Answering,
    base::Base,
    config::Experiment,
    error::{Error, Result},
    events::Recorder,
    learner::Learner,
    methods::{Method, method},
};

/// What a run has learnt so far.
pub struct Trained<'a> {
    /// Settings of the run.
    pub experiment: Experiment,
    /// Number of tasks that were complete, the current one included where it was under way.
    pub learnt: usize,
    /// Names of each task's labels, by class.
    pub labels: Vec<Vec<String>>,
    base: &'a Base,
    method: Box<dyn Method>,
    learner: Learner,
}

impl<'a> Trained<'a> {
    /// Settings of the run that `path` belongs to: a run directory, or one of its checkpoints.
    ///
    /// # Errors
    /// When there is no `config.toml`, or it is refused.
    pub fn experiment(path: &Path) -> Result<Experiment> {
        let run = if path.join("state.json").is_file() {
            path.parent().and_then(Path::parent).unwrap_or(path)
        } else {
            path
        };
        let config = run.join("config.toml");
        if !config.is_file() {
            return Err(Error::RunDirectory {
                path: path.into(),
                problem:
                    "is neither a run directory (with config.toml) nor a checkpoint inside one"
                        .into(),
            });
        }
        Ok(Experiment::load(&config, &[])?)
    }

    /// Reads the newest whole checkpoint of a run directory, or the checkpoint directory itself.
    ///
    /// # Errors
    /// When there is none, or it does not fit the base.
    pub fn open(path: &Path, base: &'a Base) -> Result<Self> {
        let experiment = Self::experiment(path)?;
        let saved = if path.join("state.json").is_file() {
            Saved::open(path)?
        } else {
            state::latest(&path.join("checkpoints"))?
                .0
                .ok_or_else(|| Error::RunDirectory {
                    path: path.into(),
                    problem: "has no whole checkpoint yet".into(),
                })?
        };
        let mut method = method(&experiment.method, experiment.tasks.len());
        let learnt = saved.progress.task + usize::from(saved.progress.step_in_task > 0);
        let learner = untrained(
            &experiment,
            base,
            saved.progress.labels.iter().map(Vec::len),
        )?;
        let prepare =
            |learner, task| prepare(method.as_ref(), &experiment, &base.decoder, learner, task);
        let learner = saved.learner((0..learnt).fold(learner, prepare))?;
        let learner = (learnt..experiment.tasks.len())
            .fold(learner, prepare)
            .valid();
        method
            .restore(saved.progress.memory.clone())
            .map_err(|error| Error::Checkpoint {
                path: saved.path.clone(),
                reason: format!("method memory: {error}"),
            })?;
        Ok(Self {
            labels: saved.progress.labels,
            experiment,
            learnt,
            base,
            method,
            learner,
        })
    }

    /// Index of a task by its name.
    ///
    /// # Errors
    /// When the stream has no such task; the error lists those that it has.
    pub fn task(&self, name: &str) -> Result<usize> {
        let names: Vec<&str> = self
            .experiment
            .tasks
            .iter()
            .map(|task| task.name.as_str())
            .collect();
        names
            .iter()
            .position(|known| *known == name)
            .ok_or_else(|| Error::UnknownTask {
                name: name.into(),
                known: names.join(", "),
            })
    }

    /// The trained parts, off the autodiff device and prepared for every task of the stream.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Which experts answer for a task.
    pub fn routing(&self, task: usize) -> Routing {
        self.method.routing(task)
    }

    /// The base with the experts that answer for a task, for generation.
    pub fn model(&self, task: usize) -> Answering<'_> {
        Answering::new(
            &self.base.decoder,
            &self.learner,
            self.method.as_ref(),
            task,
        )
    }

    /// Scores on every task of the stream, with the task given.
    ///
    /// # Errors
    /// When data are refused or an event cannot be recorded.
    pub fn evaluate(&self, recorder: &mut dyn Recorder) -> Result<(Vec<Task>, Scores)> {
        let (tasks, _warnings) =
            stream::load(&self.experiment, self.base, 0..self.experiment.tasks.len())?;
        let scores = evaluate(
            &self.experiment,
            self.base,
            self.method.as_ref(),
            &self.learner,
            &tasks,
            self.learnt,
            recorder,
        )?;
        Ok((tasks, scores))
    }
}
