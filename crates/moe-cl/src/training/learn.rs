//! One more task for a model that has learnt some.

use std::path::Path;

use super::{
    guard::{DevScores, Refusal},
    read::{arrived, kept_task},
    result::{RunResult, read_result},
    run::{check_data, check_dtype},
    scheduler::Run,
    session::{EVENTS, ReadBack, Session, Started, conclude, conclude_stored, read_back},
    settings::{not_of_a_task, task_differences},
    stream::Task,
};
use crate::{
    base::Base,
    config::{Experiment, TaskConfig},
    directory::{
        Checkpoints, Lock, Saved, State, TaskSettings, TaskState, newest, newest_saved, run_of,
    },
    error::{Error, Result},
    events::{JsonLog, Recorder},
    methods::method,
};

/// How a task is learnt into a model.
#[derive(Clone, Debug, Default)]
pub struct LearnOptions {
    /// Settings that the task has for itself, `key.path=value`: of training and data, and rank, alpha and dropout of its experts.
    pub set: Vec<String>,
    /// The largest loss on the dev part of any earlier task at which the task is adopted; none: whatever it costs.
    pub guard: Option<f64>,
    /// Go on although the base is another one than the model was trained on.
    pub allow_other_base: bool,
    /// Where it is computed, where that is another device than the run was begun on.
    pub device: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The model has the task.
    Learnt(Box<RunResult>),
    /// It had it already, learnt from the same data; nothing was changed.
    Already,
    /// It would have cost an earlier task too much; the model is as it was.
    Refused(Refusal),
}

/// Learns the task that `config` describes into the model in `model`, the directory of a run.
///
/// The weights are, bit for bit on the CPU, those that one stream with this task at its end would have given. Whoever is killed and
/// gives the same call again ends with the same weights as well.
///
/// # Errors
/// When the model is another base's, in the middle of something else, or of a method that has to know its tasks from the start; when a
/// task of that name was learnt from other data; when data, settings or disk refuse; when the recorder asks to stop
/// ([`Error::Stopped`]).
pub fn learn(
    model: &Path,
    base: &Base,
    config: &TaskConfig,
    options: &LearnOptions,
    recorder: &mut dyn Recorder,
) -> Result<Outcome> {
    let started = Started::now();
    let out = &run_of(model)?;
    let _lock = Lock::take(out)?;
    let read = |saved: &Saved| read_back(saved, base, options.allow_other_base);
    let (found, mut warnings) = newest(out, |_| true, read)?;
    let found = found.ok_or_else(|| Error::RunDirectory {
        path: out.clone(),
        problem: "has no whole checkpoint yet: `moe-cl train` begins it".into(),
    })?;
    warnings.extend(found.saved.passed_over.iter().cloned());
    let state = found.saved.state.clone();
    let mut experiment = state.experiment.clone();
    check_dtype(&experiment, base)?;
    if let Some(device) = &options.device {
        experiment.device.clone_from(device);
    }
    state.check_imported_name(&config.name)?;
    let settings = settings(&state, config, &options.set)?;
    let refused = |problem: String| Error::CannotLearn {
        task: config.name.clone(),
        problem,
    };
    if let Some(known) = state
        .tasks
        .iter()
        .position(|it| it.config.name == config.name)
        && known < state.progress.task
    {
        let outcome = already(&state, known, config, base)?;
        // Killed between its last checkpoint and its end.
        if state.progress.task == state.tasks.len() && read_result(out, &found.saved)?.is_none() {
            conclude_stored(out, &found.saved)?;
        }
        return Ok(outcome);
    }
    check_turn(&state, config, &warnings)?;
    let index = state.progress.task;
    let begun = state.tasks.get(index);
    if let Some(reason) = method(&experiment.method, index).sealed() {
        let message = format!(
            "it cannot be added to this model: {reason}; train the whole stream anew, or with a method that learns on (`moe-cl methods`)"
        );
        return Err(refused(message));
    }
    if let Some(begun) = begun
        && let Some(difference) = task_differences(&begun.settings, &settings).first()
    {
        let message = format!(
            "it was begun with other settings ({difference}): give the same command again, or go back with `moe-cl rollback`"
        );
        return Err(refused(message));
    }

    let (split, place) = (experiment.evaluation.split, (experiment.seed, index));
    let task = Task::load(config, &settings, split, place, base, &mut warnings)?;
    if let Some(begun) = begun {
        check_data(begun, &task)?;
    }
    if task.evaluation.is_empty() {
        warnings.push(
            format!(
                "task `{}` has no {split:?} part: it is never scored",
                config.name
            )
            .to_lowercase(),
        );
    }
    let parts = &found.saved.parts;
    let new = match begun {
        Some(begun) => begun.clone(),
        None => arrived(&task, config, &settings, parts)?,
    };
    let guard = match options.guard {
        Some(most) => {
            let dev = DevScores::tasks(&state.tasks[..index], &new, parts, base)?;
            Some((most, dev))
        }
        None => None,
    };
    let earlier = state.tasks[..index].iter();
    let mut tasks = earlier
        .map(|it| Ok((kept_task(it, parts, split, base)?, it.clone())))
        .collect::<Result<Vec<(Task, TaskState)>>>()?;
    tasks.push((task, new));
    let is_new = begun.is_none();
    let session = Session::new(&experiment, base, out);
    let outcome = session.run(tasks, Some(found), warnings, recorder, |run| {
        let guard = match guard {
            Some((most, dev)) => {
                let before = last_adopted(run, out, base, options)?;
                let before = DevScores::before(run, before, &dev)?;
                Some((most, dev, before))
            }
            None => None,
        };
        if is_new {
            run.measure_arrived(index)?;
        }
        run.learn_task()?;
        if let Some((most, dev, before)) = guard {
            let after = DevScores::after(run, &dev, &before)?;
            if let Some(refusal) = before.refusal(&after, &dev, most) {
                return Ok(Outcome::Refused(refusal));
            }
        }
        run.keep_task()?;
        Ok(Outcome::Learnt(Box::new(conclude(run, out, started)?)))
    })?;
    if let Outcome::Refused(_) = outcome {
        put_back(out)?;
    }
    Ok(outcome)
}

/// The settings of the new task: those of the run with its own on top.
fn settings(state: &State, config: &TaskConfig, set: &[String]) -> Result<TaskSettings> {
    let run = Experiment {
        tasks: vec![config.clone()],
        ..state.experiment.clone()
    };
    let own = Experiment::parse(&run.to_toml(), Path::new("the model's settings"), set)?;
    if let Some(difference) = not_of_a_task(&run, &own).first() {
        return Err(Error::CannotLearn {
            task: config.name.clone(),
            problem: format!(
                "{difference}: a task has settings of its own for training, data, and rank, alpha, rslora, dropout and init of its experts; all others are the model's"
            ),
        });
    }
    Ok(TaskSettings::of(&own, config))
}

/// A name that is taken: by the same data, or by others.
fn already(state: &State, known: usize, config: &TaskConfig, base: &Base) -> Result<Outcome> {
    let learnt = &state.tasks[known];
    let place = (state.experiment.seed, known);
    let split = state.experiment.evaluation.split;
    let task = Task::load(
        config,
        &learnt.settings,
        split,
        place,
        base,
        &mut Vec::new(),
    )?;
    match check_data(learnt, &task) {
        Ok(()) => Ok(Outcome::Already),
        Err(_) => Err(Error::CannotLearn {
            task: config.name.clone(),
            problem: format!(
                "the model has learnt a task of that name from other data ({}); give the new one another name",
                learnt.training.file.display()
            ),
        }),
    }
}

/// Refuses a task while another is being learnt, and says what was passed over if that is why.
fn check_turn(state: &State, config: &TaskConfig, warnings: &[String]) -> Result<()> {
    let waiting = &state.tasks[state.progress.task..];
    let problem = match waiting {
        [] => return Ok(()),
        [one] if one.config.name == config.name => return Ok(()),
        [one] if state.progress.step_in_task > 0 => format!(
            "the model is in the middle of task {:?}: give the command again that learns it, or go back with `moe-cl rollback`",
            one.config.name
        ),
        [first, ..] => format!(
            "the model's own stream is not learnt yet (next is {:?}): go on with `moe-cl train --resume` first",
            first.config.name
        ),
    };
    let problems = std::iter::once(problem).chain(warnings.iter().cloned());
    Err(Error::CannotLearn {
        task: config.name.clone(),
        problem: problems.collect::<Vec<_>>().join("; "),
    })
}

/// The model as it was before the task was begun: none where the run stands there itself.
fn last_adopted(
    run: &Run<'_>,
    out: &Path,
    base: &Base,
    options: &LearnOptions,
) -> Result<Option<ReadBack>> {
    if run.progress().step_in_task == 0 {
        return Ok(None);
    }
    let read = |saved: &Saved| read_back(saved, base, options.allow_other_base);
    let (found, _) = newest(out, State::is_between_tasks, read)?;
    match found {
        Some(found) => Ok(Some(found)),
        None => Err(Error::RunDirectory {
            path: out.into(),
            problem: "the checkpoint from before the task is gone, so that its cost cannot be told"
                .into(),
        }),
    }
}

/// Removes what a refused task has left behind.
fn put_back(out: &Path) -> Result<()> {
    let adopted = newest_saved(out, State::is_between_tasks)?;
    let Some(adopted) = adopted else {
        return Ok(());
    };
    let mut checkpoints = Checkpoints::open(out, Some(&adopted.path))?;
    checkpoints.remove_after(&adopted.path)?;
    checkpoints.sweep(std::iter::empty())?;
    let path = out.join(EVENTS);
    JsonLog::resume(&path, &adopted.state.progress)
        .map(|_| ())
        .map_err(|source| Error::File { path, source })
}
