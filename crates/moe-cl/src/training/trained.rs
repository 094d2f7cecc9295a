//! A model read from its directory, for evaluation and generation. Nothing is locked and nothing written.

use std::path::Path;

use burn::{module::Module, tensor::activation::softmax};
use moe_lora::Routing;

use super::{
    evaluate::{Evaluation, Scores},
    infer::{Sent, evaluation_features},
    prepare::prepare,
    read::{kept_task, memory_of, model_of},
    stream::Task,
};
use crate::{
    base::Base,
    config::{Experiment, Objective, Split},
    data::Example,
    directory::{Saved, State, newest_saved, run_of},
    error::{Error, Result},
    events::Recorder,
    learner::Learner,
    methods::{Method, method},
    metrics::Inferred,
    predict::class_scores,
    recognizer::{Matrix, TaskRecognizer},
    task_model::{TaskChoice, TaskModel},
};

/// What a run has learnt so far.
pub struct Trained<'a> {
    /// Settings of the run, with its tasks.
    pub experiment: Experiment,
    /// Number of tasks that are learnt, the current one included where it was under way.
    pub learnt: usize,
    /// The checkpoint that it was read from.
    pub saved: Saved,
    pub(super) base: &'a Base,
    pub(super) method: Box<dyn Method>,
    pub(super) learner: Learner,
    pub(super) recognizer: TaskRecognizer,
}

/// The checkpoint that `path` stands for: itself, or of a run's directory the newest between two tasks. What is under way is not yet
/// what the model is.
///
/// # Errors
/// When there is none.
pub fn checkpoint_of(path: &Path) -> Result<Saved> {
    let run = run_of(path)?;
    if run != path && path.join("state.json").is_file() {
        return Saved::open(path);
    }
    let saved = newest_saved(&run, State::is_between_tasks)?;
    saved.ok_or_else(|| Error::RunDirectory {
        path: path.into(),
        problem: "has no whole checkpoint yet".into(),
    })
}

impl<'a> Trained<'a> {
    /// Reads the model of a run's directory, or of one of its checkpoints ([`checkpoint_of`]).
    ///
    /// # Errors
    /// When there is none, it is damaged, or it is another base's and that is not allowed.
    pub fn open(path: &Path, base: &'a Base) -> Result<Self> {
        let saved = checkpoint_of(path)?;
        base.check(&saved.state.base.identity)?;
        Self::on_base(saved, base)
    }

    /// The model of a checkpoint, on a base that the caller knows to serve.
    ///
    /// # Errors
    /// When a part is damaged or does not fit.
    pub fn on_base(saved: Saved, base: &'a Base) -> Result<Self> {
        let state = &saved.state;
        let mut experiment = state.whole_experiment();
        let mut method = method(&experiment.method, state.tasks.len());
        let model = model_of(&saved, base, |_| true)?;
        let first_ahead = model.learner.tasks.len();
        let ahead = state.tasks.iter().enumerate().skip(first_ahead);
        let learner = ahead.fold(model.learner, |learner, (index, task)| {
            let form = super::prepare::TaskForm {
                task: index,
                name: &task.config.name,
                classes: task.labels.len(),
                settings: &task.settings,
            };
            prepare(
                method.as_ref(),
                experiment.seed,
                &base.decoder,
                learner,
                form,
            )
        });
        let imported = state.imported.iter().map(|task| task.config.clone());
        experiment.tasks.extend(imported);
        method
            .restore(&memory_of(&saved)?)
            .map_err(|error| saved.damaged(format!("method memory: {error}")))?;
        Ok(Self {
            learnt: state.progress.task + usize::from(state.progress.step_in_task > 0),
            recognizer: model.recognizer,
            learner: learner.valid(),
            experiment,
            base,
            method,
            saved,
        })
    }

    /// Index of a task by its name.
    ///
    /// # Errors
    /// When the model has no such task; the error lists those that it has.
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

    /// Names of a task's labels, by class.
    pub fn labels(&self, task: usize) -> &[String] {
        &self.saved.state.task(task).labels
    }

    /// How a task answers.
    pub fn objective(&self, task: usize) -> Objective {
        self.learner.objective(task)
    }

    /// The trained parts, off the autodiff device and prepared for every task that is known.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Which experts answer for a task.
    pub fn routing(&self, task: usize) -> Routing {
        self.learner.answering(task).clone()
    }

    /// Whether the method has experts for a text that belongs to no known task, `task` being the nearest.
    pub fn has_fallback(&self, task: usize) -> bool {
        self.method.fallback(&self.learner, task).is_some()
    }

    /// Whether a task answers: it is learnt, or was imported.
    pub fn answers(&self, task: usize) -> bool {
        task < self.learnt || self.is_imported(task)
    }

    /// Whether an imported expert answers for a task.
    pub fn is_imported(&self, task: usize) -> bool {
        self.learner.imported(task).is_some()
    }

    /// A task with the rows of a split that are kept with the model.
    pub(super) fn kept(&self, task: usize, split: Split) -> Result<Task> {
        kept_task(
            self.saved.state.task(task),
            &self.saved.parts,
            split,
            self.base,
        )
    }

    /// For every text of one split of a task that has a label: the distribution over the task's labels, with the task given, and the class that is true.
    ///
    /// # Errors
    /// When the kept rows are damaged.
    pub fn distributions(&self, task: usize, split: Split) -> Result<Vec<(Vec<f64>, usize)>> {
        let stream = self.kept(task, split)?;
        let mut distributions = Vec::with_capacity(stream.evaluation.len());
        for batch in stream.evaluation_batches(self.experiment.evaluation.batch_size) {
            let examples: Vec<&Example> = batch.iter().map(|&i| &stream.evaluation[i]).collect();
            let scores = class_scores(
                self.base,
                &self.learner,
                TaskChoice::of(self.method.as_ref(), task),
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

    /// The base with the experts that answer for a task, or with `unknown` for a text of no known task near it, for generation.
    pub fn model(&self, task: usize, unknown: bool) -> TaskModel<'_> {
        let choice = TaskChoice {
            method: self.method.as_ref(),
            task,
            unknown,
        };
        TaskModel::new(&self.base.decoder, &self.learner, choice)
    }

    /// Scores on every task that is known, or on one `only`, with the task given, on the rows that are kept with the model.
    ///
    /// # Errors
    /// When these are damaged or an event cannot be recorded.
    pub fn evaluate(
        &self,
        only: Option<usize>,
        recorder: &mut dyn Recorder,
    ) -> Result<(Vec<Task>, Scores)> {
        let all = 0..self.experiment.tasks.len();
        let split = self.experiment.evaluation.split;
        let tasks = all.clone().map(|task| self.kept(task, split));
        let tasks = tasks.collect::<Result<Vec<Task>>>()?;
        let which: Vec<usize> = all
            .filter(|&it| only.is_none_or(|only| only == it))
            .collect();
        let scores = self
            .evaluation(&tasks)
            .given(&which, self.learnt, recorder)?;
        Ok((tasks, scores))
    }

    /// Scores on the learnt tasks with the task of every text inferred, next to those `given` on the same texts; none before the first
    /// task is learnt.
    ///
    /// # Errors
    /// When a text cannot be put in another task's words.
    pub fn evaluate_inferred(&self, tasks: &[Task], given: &Scores) -> Result<Option<Inferred>> {
        if self.recognizer.tasks() == 0 {
            return Ok(None);
        }
        let features: Vec<Matrix> = tasks
            .iter()
            .map(|task| evaluation_features(self.base, &self.recognizer, task))
            .collect();
        let fallback = |task| self.has_fallback(task);
        let sent = Sent::new(
            &self.recognizer,
            &features,
            fallback,
            &given.texts,
            &[],
            &[],
        );
        Ok(Some(sent.evaluate(&self.evaluation(tasks))?.0))
    }

    pub(super) fn evaluation<'b>(&'b self, tasks: &'b [Task]) -> Evaluation<'b> {
        Evaluation {
            batch_size: self.experiment.evaluation.batch_size,
            base: self.base,
            method: self.method.as_ref(),
            learner: &self.learner,
            tasks,
        }
    }
}
