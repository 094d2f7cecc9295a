//! A run from the first task to the last, or on from where it was stopped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    prepare::untrained,
    read::{arrived, kept_task},
    result::{RunResult, read_result},
    scheduler::Run,
    session::{Session, Started, conclude, read_back},
    settings::{differences, task_differences},
    stream::Task,
};
use crate::{
    base::Base,
    config::Experiment,
    data::DataError,
    directory::{CONFIG, Lock, Parts, Saved, State, TaskSettings, TaskState, newest},
    error::{Error, Result},
    events::Recorder,
    methods::method,
};

/// Where a run writes, and whether it goes on.
#[derive(Clone, Debug, derive_new::new)]
pub struct RunOptions {
    /// Directory of the run.
    pub out: PathBuf,
    /// Go on from the newest whole checkpoint in `out`, if there is one.
    pub resume: bool,
    /// Go on although the base is another one than the run began with.
    #[new(default)]
    pub allow_other_base: bool,
}

/// Learns the experiment's tasks one after another on top of the frozen `base`.
///
/// Writes `config.toml`, `events.jsonl`, `checkpoints/`, `parts/` and `result.json` below `options.out`.
/// A run that was killed and is resumed ends with the same weights, bit for bit on the CPU, as one that was not. Of a run that is
/// finished, nothing is changed.
///
/// # Errors
/// When data, configuration or disk refuse, when another process writes into `out`, when `out` already holds a run and `resume` is not
/// set, or holds one of another base, other data or other settings, when a trained parameter has no gradient, when loss or gradient
/// are no longer finite, or when the recorder asks to stop ([`Error::Stopped`]).
pub fn train(
    experiment: &Experiment,
    base: &Base,
    options: &RunOptions,
    recorder: &mut dyn Recorder,
) -> Result<RunResult> {
    let started = Started::now();
    let out = &options.out;
    check_dtype(experiment, base)?;
    let _lock = Lock::take(out)?;
    let claimed = out.join(CONFIG).is_file();
    let problem = |problem: &str| Error::RunDirectory {
        path: out.clone(),
        problem: problem.into(),
    };
    if claimed && !options.resume {
        return Err(problem(
            "already holds a run: go on with --resume, or name another directory with --out",
        ));
    }
    let read = |saved: &Saved| read_back(saved, base, options.allow_other_base);
    let (found, mut warnings) = newest(out, |_| true, read)?;
    let Some(found) = found else {
        let parts = Parts::of_run(out);
        // Whatever is refused is refused before the directory is taken for a run.
        untrained(experiment, &base.decoder)?;
        let tasks = load_new_tasks(experiment, base, 0, &parts, &mut warnings)?;
        write_config(out, experiment)?;
        let session = Session::new(experiment, base, out);
        return session.run(tasks, None, warnings, recorder, |run| {
            run.measure_untrained()?;
            finish(run, out, started)
        });
    };
    if !claimed {
        return Err(problem(
            "has checkpoints but no config.toml, so that nobody can tell whether they are of this experiment: put the file back, or name another directory with --out",
        ));
    }
    warnings.extend(found.saved.passed_over.iter().cloned());
    let state = &found.saved.state;
    check_settings(out, state, experiment)?;
    let tasks = load_tasks(experiment, base, &found.saved, &mut warnings)?;
    let first_new = state.tasks.len();
    for task in experiment.tasks.iter().skip(first_new) {
        state.check_imported_name(&task.name)?;
    }
    let is_finished = state.progress.task == tasks.len();
    if is_finished && let Some(result) = read_result(out, &found.saved)? {
        let whole = state.whole_experiment().tasks.into_iter();
        let as_finished = Experiment {
            tasks: whole.take(experiment.tasks.len()).collect(),
            ..state.experiment.clone()
        };
        write_config(out, &as_finished)?;
        return Ok(result);
    }
    write_config(out, experiment)?;
    let session = Session::new(experiment, base, out);
    session.run(tasks, Some(found), warnings, recorder, |run| {
        run.measure_arrived(first_new)?;
        finish(run, out, started)
    })
}

/// The base has to be in the format that the run's settings will be read back with.
pub(super) fn check_dtype(experiment: &Experiment, base: &Base) -> Result<()> {
    let (asked, loaded) = (experiment.base.dtype, base.decoder.dtype());
    match asked.has_numbers_of(loaded) {
        true => Ok(()),
        false => Err(Error::BaseDtype { asked, loaded }),
    }
}

/// Refuses settings with which the run would learn something else.
fn check_settings(out: &Path, state: &State, experiment: &Experiment) -> Result<()> {
    let refused = |what: String| Error::AnotherSetting {
        run: out.into(),
        what,
        way_out: "give the value that the run was begun with, or start it elsewhere with --out"
            .into(),
    };
    if let Some(difference) = differences(&state.experiment, experiment).first() {
        return Err(refused(format!("the setting {difference}")));
    }
    for (was, is) in state.tasks.iter().zip(&experiment.tasks) {
        let name = &was.config.name;
        if *name != is.name {
            let what = format!("the task {name:?} is there where now {:?} is", is.name);
            return Err(refused(what));
        }
        if was.config.instruction != is.instruction {
            return Err(refused(format!(
                "the instruction of task {name:?} is another"
            )));
        }
        // One that came later has settings of its own.
        let own = task_differences(&was.settings, &TaskSettings::of(experiment, is));
        if let (Some(difference), None) = (own.first(), &was.learnt) {
            return Err(refused(format!(
                "of task {name:?}, the setting {difference}"
            )));
        }
    }
    Ok(())
}

/// The tasks that are stored, and after them those that the experiment has and the run does not know yet.
fn load_tasks(
    experiment: &Experiment,
    base: &Base,
    saved: &Saved,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Task, TaskState)>> {
    let (stored, split) = (&saved.state.tasks, experiment.evaluation.split);
    let mut tasks = Vec::with_capacity(stored.len());
    for (index, state) in stored.iter().enumerate() {
        // The files of a task that an experiment names may have moved; those of one that came later are where they were.
        let named = experiment.tasks.get(index);
        let mut task = kept_task(state, &saved.parts, split, base)?;
        if let Some(config) = named {
            check_labels(state, config.labels.as_deref())?;
        }
        let wanted = named.is_some() || state.learnt.is_none();
        if wanted {
            let config = named.unwrap_or(&state.config);
            let place = (experiment.seed, index);
            let mut settings = state.settings.clone();
            if named.is_some() {
                settings.data.root.clone_from(&experiment.data.root);
            }
            let loaded = Task::load(config, &settings, split, place, base, warnings);
            match loaded {
                Ok(loaded) => {
                    check_data(state, &loaded)?;
                    task.train = loaded.train;
                    task.train_texts = loaded.train_texts;
                    task.data.train = loaded.data.train;
                }
                // What is learnt is kept; its files may be gone.
                Err(Error::Data(DataError::Unreadable { .. })) if state.learnt.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        tasks.push((task, state.clone()));
    }
    let known = stored.len();
    if let (Some(config), Some(reason)) = (
        experiment.tasks.get(known),
        method(&experiment.method, known).sealed(),
    ) {
        return Err(Error::CannotLearn {
            task: config.name.clone(),
            problem: format!("it cannot be added to this run: {reason}"),
        });
    }
    tasks.extend(load_new_tasks(
        experiment,
        base,
        known,
        &saved.parts,
        warnings,
    )?);
    Ok(tasks)
}

/// The experiment's tasks from the `first` on, which the run does not know yet.
fn load_new_tasks(
    experiment: &Experiment,
    base: &Base,
    first: usize,
    parts: &Parts,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Task, TaskState)>> {
    let split = experiment.evaluation.split;
    let new = experiment.tasks.iter().enumerate().skip(first);
    new.map(|(index, config)| {
        let (settings, place) = (
            TaskSettings::of(experiment, config),
            (experiment.seed, index),
        );
        let task = Task::load(config, &settings, split, place, base, warnings)?;
        let state = arrived(&task, config, &settings, parts)?;
        Ok((task, state))
    })
    .collect()
}

fn check_labels(state: &TaskState, labels: Option<&[String]>) -> Result<()> {
    match labels {
        Some(labels) if labels != state.labels => Err(Error::CannotLearn {
            task: state.config.name.clone(),
            problem: format!(
                "its labels were {} when it was begun, now they are {}; a run goes on with the labels that it began with",
                state.labels.join(", "),
                labels.join(", ")
            ),
        }),
        _ => Ok(()),
    }
}

/// Refuses training data that are not those that the task was begun with.
pub(super) fn check_data(state: &TaskState, task: &Task) -> Result<()> {
    if state.labels != task.labels {
        check_labels(state, Some(&task.labels))?;
    }
    let (was, is) = (&state.training, task.training_data());
    if was.sha256 == is.sha256 {
        return Ok(());
    }
    Err(Error::CannotLearn {
        task: state.config.name.clone(),
        problem: format!(
            "{} does not hold the {} training records any more that the task was begun with in {}; put them back, or learn the new ones as a task of another name",
            is.file.display(),
            was.rows,
            was.file.display()
        ),
    })
}

/// Where the file does not say that already.
fn write_config(out: &Path, experiment: &Experiment) -> Result<()> {
    let (path, text) = (out.join(CONFIG), experiment.to_toml());
    if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    moe_core::atomic::write_file(&path, text.as_bytes())
        .map_err(|source| Error::File { path, source })
}

/// Learns what is left of the stream and writes the result.
fn finish(run: &mut Run<'_>, out: &Path, started: Started) -> Result<RunResult> {
    while !run.is_complete() {
        run.learn_task()?;
        run.keep_task()?;
    }
    conclude(run, out, started)
}
