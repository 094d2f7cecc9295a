//! A PEFT adapter that becomes an expert of a model.

use std::path::Path;

use burn::module::Module;
use moe_core::parameters::to_bytes;
use moe_lora::{ExpertId, Routing, peft::PeftAdapter};

use crate::{
    base::Base,
    config::{Objective, Split, TaskConfig},
    data::Form,
    directory::{
        Checkpoints, KeptRows, Lock, Saved, State, Stored, TaskSettings, TaskState, TrainingData,
        newest_saved, run_of,
    },
    error::{Error, Result},
    learner::TaskExperts,
    methods::method,
    metrics::TextMetric,
    training::{prepare::untrained, read::arrived, stream::Task},
};

/// What became of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The expert that it is now.
    pub expert: ExpertId,
    /// Rows that are kept to score its task on.
    pub rows: usize,
    /// What the user should know of these.
    pub warnings: Vec<String>,
}

/// The checkpoint that a change of the catalogue stands on: the newest, which has to be between two tasks.
///
/// # Errors
/// When there is none, or a task is being learnt.
pub(super) fn between_tasks(out: &Path) -> Result<Saved> {
    let problem = |problem: String| Error::RunDirectory {
        path: out.into(),
        problem,
    };
    let saved = newest_saved(out, |_| true)?;
    let saved = saved
        .ok_or_else(|| problem("has no whole checkpoint yet: `moe-cl train` begins it".into()))?;
    match saved.state.is_between_tasks() {
        true => saved.mending(),
        false => {
            let task = &saved.state.tasks[saved.state.progress.task].config.name;
            Err(problem(format!(
                "is in the middle of task {task:?}: finish it with the command that learns it, or go back with `moe-cl rollback`"
            )))
        }
    }
}

/// Writes the checkpoint in the place of the one that it was made from, and removes what it no longer names.
///
/// # Errors
/// When the disk refuses.
pub(super) fn replace(checkpoints: &mut Checkpoints, state: &State, from: &Saved) -> Result<()> {
    checkpoints.save(state, &from.times, state.experiment.training.keep)?;
    checkpoints.sweep(std::iter::empty())
}

/// Makes the adapter in the folder `adapter` an expert of the model in `model`, and where a `task` is given, a task that this expert
/// answers alone and in words. Its `test` file, where it names one, is kept to be scored on; `train` is not read.
///
/// The model's own tasks, and what it will learn, are as they were but for the ids of experts to come.
///
/// # Errors
/// When the model is in the middle of a task, is written by another process, or is another base's; when the adapter is refused
/// ([`PeftAdapter::read`]), or is for layers that have no experts; when the task's name is taken, or its data are refused.
pub fn import(
    model: &Path,
    base: &Base,
    adapter: &Path,
    task: Option<&TaskConfig>,
    allow_other_base: bool,
) -> Result<Imported> {
    let out = run_of(model)?;
    let _lock = Lock::take(&out)?;
    let saved = between_tasks(&out)?;
    if !allow_other_base {
        base.check(&saved.state.base.identity)?;
    }
    let mut state = saved.state.clone();
    if let Some(task) = task {
        state.check_name(&task.name)?;
    }
    let device = base.decoder.device();
    let empty = untrained(&state.experiment, &base.decoder)?.catalogue;
    let mut catalogue = empty.described(&[], &[], state.layout.next, &device)?;
    if catalogue.layers().is_empty() {
        return Err(Error::RunDirectory {
            path: out,
            problem: format!(
                "is of a method without experts ({}): an adapter cannot be one of them",
                method(&state.experiment.method, state.tasks.len()).name()
            ),
        });
    }
    let read = PeftAdapter::read(adapter, base.decoder.config(), &device)?;
    let expert = catalogue.import(&read, task.map_or("", |task| task.name.as_str()))?;
    let mut checkpoints = Checkpoints::open(&out, Some(&saved.path))?;
    let parts = checkpoints.parts().clone().mending();
    let mut imported = Imported {
        expert,
        rows: 0,
        warnings: Vec::new(),
    };
    if let Some(task) = task {
        let source = TrainingData {
            file: adapter.canonicalize().unwrap_or_else(|_| adapter.into()),
            sha256: read.sha256.clone(),
            rows: 0,
        };
        let mut new = match &task.test {
            Some(_) => scored(&state, task, base, &parts, &mut imported.warnings)?,
            None => unscored(&state, task),
        };
        new.training = source;
        new.config.train = adapter.into();
        new.experts = Some(TaskExperts::of(Routing::Single(expert)));
        imported.rows = new.dev.rows + new.test.rows;
        state.imported.push(new);
    }
    let expert = catalogue.expert(expert);
    state.layout.experts.push(Stored {
        is: expert.info.clone(),
        part: parts.put(&to_bytes(&expert.clone().no_grad()))?,
    });
    state.layout.next = catalogue.next_ids();
    replace(&mut checkpoints, &state, &saved)?;
    Ok(imported)
}

fn settings(state: &State, task: &TaskConfig) -> (TaskConfig, TaskSettings) {
    let config = TaskConfig {
        objective: Some(Objective::Instruction),
        ..task.clone()
    };
    let mut settings = TaskSettings::of(&state.experiment, &config);
    settings.data.train_examples = None;
    settings.data.dev_examples = None;
    settings.data.test_examples = None;
    (config, settings)
}

/// A task with rows to be scored on: its form, labels and longest answer are those of the file.
fn scored(
    state: &State,
    task: &TaskConfig,
    base: &Base,
    parts: &crate::directory::Parts,
    warnings: &mut Vec<String>,
) -> Result<TaskState> {
    let (mut config, settings) = settings(state, task);
    let split = state.experiment.evaluation.split;
    let file = config.test.take().expect("a task with a file");
    config.train.clone_from(&file);
    match split {
        Split::Dev => config.dev = Some(file),
        Split::Test => config.test = Some(file),
    }
    let place = (
        state.experiment.seed,
        state.tasks.len() + state.imported.len(),
    );
    let mut said = Vec::new();
    let task = Task::load(&config, &settings, split, place, base, &mut said)?;
    // Nothing is learnt here: that the file is read as both says nothing.
    warnings.extend(
        said.into_iter()
            .filter(|it| !it.contains("also in the training file")),
    );
    arrived(&task, &config, &settings, parts)
}

/// A task that nobody scores: it answers conversations in free text.
fn unscored(state: &State, task: &TaskConfig) -> TaskState {
    let (config, settings) = settings(state, task);
    let nothing = KeptRows {
        rows: 0,
        part: None,
    };
    TaskState {
        labels: Vec::new(),
        form: Form::Conversation,
        room: settings.data.max_tokens / 2,
        metric: Some(config.metric.unwrap_or(TextMetric::ExactMatch)),
        training: TrainingData {
            file: config.train.clone(),
            sha256: String::new(),
            rows: 0,
        },
        config,
        settings,
        dev: nothing.clone(),
        test: nothing,
        features: None,
        experts: None,
        head: None,
        learnt: None,
        answers: None,
    }
}
