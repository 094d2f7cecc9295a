//! A learner read back from a run directory, for evaluation and generation.

use std::path::Path;

use burn::{module::Module, tensor::activation::softmax};
use moe_lora::Routing;

use super::{
    evaluate::{Scores, evaluate},
    infer::{Inference, evaluation_features},
    prepare::{prepare, untrained},
    state::{self, Saved},
    stream::{self, Task},
};
use crate::{
    answering::{Answerer, Answering},
    base::Base,
    config::{Experiment, Split},
    data::Example,
    error::{Error, Result},
    events::Recorder,
    learner::Learner,
    methods::{Method, method},
    metrics::Inferred,
    predict::class_scores,
    router::{Routed, TaskRouter, pooled_features},
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
    router: TaskRouter,
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
            .restore(&saved.memory)
            .map_err(|error| Error::Checkpoint {
                path: saved.path.clone(),
                reason: format!("method memory: {error}"),
            })?;
        let router = TaskRouter::new(&experiment.router, base.decoder.config())?;
        Ok(Self {
            router: saved.router(router)?,
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

    /// Whether the method has experts for a text that belongs to no known task, `task` being the nearest.
    pub fn has_fallback(&self, task: usize) -> bool {
        self.method.fallback(task).is_some()
    }

    /// The task of a bare text, as the router sees it; none before the first task is learnt.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn infer(&self, text: &str) -> Result<Option<Routed>> {
        let mut tokens = self.base.tokenizer.encode_text(text, true)?;
        tokens.truncate(self.experiment.data.max_tokens);
        if tokens.is_empty() || self.router.tasks() == 0 {
            return Ok(None);
        }
        let layer = self.router.layer();
        let features = pooled_features(&self.base.decoder, self.base.pad(), layer, &[tokens]);
        Ok(self.router.route(&features).pop())
    }

    /// For every text of one split of a task that has a label: the distribution over the task's labels, with the task given, and the class that is true.
    ///
    /// # Errors
    /// When data are refused.
    pub fn distributions(&self, task: usize, split: Split) -> Result<Vec<(Vec<f64>, usize)>> {
        let mut experiment = self.experiment.clone();
        experiment.evaluation.split = split;
        let (tasks, _warnings) = stream::load(&experiment, self.base, task..task + 1)?;
        let stream = &tasks[0];
        let mut distributions = Vec::with_capacity(stream.evaluation.len());
        for batch in stream.evaluation_batches(experiment.evaluation.batch_size) {
            let examples: Vec<&Example> = batch.iter().map(|&i| &stream.evaluation[i]).collect();
            let scores = class_scores(
                experiment.training.objective,
                self.base,
                &self.learner,
                Answerer::of(self.method.as_ref(), task),
                &examples,
                &stream.answers,
            );
            let [_texts, classes] = scores.dims();
            let probabilities: Vec<f64> = softmax(scores, 1)
                .into_data()
                .iter::<f32>()
                .map(f64::from)
                .collect();
            for (example, row) in examples.iter().zip(probabilities.chunks(classes)) {
                distributions.extend(example.label.map(|label| (row.to_vec(), label)));
            }
        }
        Ok(distributions)
    }

    /// Scores on the learnt tasks with the task of every text inferred, next to those `given` on the same texts; none before the first task is learnt.
    ///
    /// # Errors
    /// When a text cannot be put in another task's words.
    pub fn evaluate_inferred(&self, tasks: &[Task], given: &Scores) -> Result<Option<Inferred>> {
        if self.router.tasks() == 0 {
            return Ok(None);
        }
        let inference = Inference {
            experiment: &self.experiment,
            base: self.base,
            method: self.method.as_ref(),
            learner: &self.learner,
            tasks,
            router: &self.router,
            features: &evaluation_features(self.base, &self.router, tasks),
        };
        Ok(Some(inference.evaluate(given)?.0))
    }

    /// The base with the experts that answer for a task, or with `unknown` for a text of no known task near it, for generation.
    pub fn model(&self, task: usize, unknown: bool) -> Answering<'_> {
        let answerer = Answerer {
            method: self.method.as_ref(),
            task,
            unknown,
        };
        Answering::new(&self.base.decoder, &self.learner, answerer)
    }

    /// Scores on every task of the stream, or on one `only`, with the task given.
    ///
    /// # Errors
    /// When data are refused or an event cannot be recorded.
    pub fn evaluate(
        &self,
        only: Option<usize>,
        recorder: &mut dyn Recorder,
    ) -> Result<(Vec<Task>, Scores)> {
        let (mut tasks, _warnings) =
            stream::load(&self.experiment, self.base, 0..self.experiment.tasks.len())?;
        if let Some(only) = only {
            for (_, task) in tasks
                .iter_mut()
                .enumerate()
                .filter(|(index, _)| *index != only)
            {
                task.evaluation.clear();
            }
        }
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
