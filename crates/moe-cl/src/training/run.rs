//! A run from the first task to the last, or on from where it was stopped.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use super::{result::RunResult, scheduler::Run, state, stream};
use crate::{
    base::Base,
    config::Experiment,
    error::{Error, Result},
    events::{Event, JsonLog, Recorder},
};

/// Where a run writes, and whether it goes on.
#[derive(Clone, Debug, derive_new::new)]
pub struct RunOptions {
    /// Directory of the run.
    pub out: PathBuf,
    /// Go on from the newest whole checkpoint in `out`, if there is one.
    pub resume: bool,
}

/// Learns the experiment's tasks one after another on top of the frozen `base`.
///
/// Writes `config.toml`, `events.jsonl`, `checkpoints/` and `result.json` below `options.out`; whatever else is to take note of the
/// run's events is handed in as `recorder`, a list of recorders if there are several.
/// A run that was killed and is resumed ends with the same weights, bit for bit on the CPU, as one that was not.
///
/// # Errors
/// When data, configuration or disk refuse, when `out` already holds a run and `resume` is not set,
/// when a trained parameter has no gradient, or when the loss is no longer finite.
pub fn learn(
    experiment: &Experiment,
    base: &Base,
    options: &RunOptions,
    recorder: &mut dyn Recorder,
) -> Result<RunResult> {
    let started = Instant::now();
    let out = &options.out;
    let checkpoints = out.join("checkpoints");
    check_base(experiment, base)?;
    claim(out, experiment, options.resume)?;
    let (saved, damaged) = state::latest(&checkpoints)?;

    let resumed_at = saved.as_ref().map(|saved| saved.progress.step);
    let log = out.join("events.jsonl");
    let mut json_log = match resumed_at {
        Some(step) => JsonLog::resume(&log, step),
        None => JsonLog::create(&log),
    }
    .map_err(|source| file_error(&log, source))?;
    let mut all: Vec<&mut dyn Recorder> = vec![&mut json_log, recorder];

    let (tasks, warnings) = stream::load(experiment, base, 0..experiment.tasks.len())?;
    let mut run = Run::new(experiment, base, &tasks, checkpoints, &mut all)?;
    run.record(Event::RunStarted {
        name: experiment.name.clone(),
        method: run.method_name(),
        seed: experiment.seed,
        tasks: tasks.iter().map(|task| task.name.clone()).collect(),
        total_steps: run.total_steps(),
        resumed_at,
    })?;
    for message in damaged.into_iter().chain(warnings) {
        run.record(Event::Warning { message })?;
    }

    match saved {
        Some(saved) => run.restore(&saved)?,
        None => run.measure_untrained()?,
    }
    while !run.is_complete() {
        run.learn_task()?;
    }

    let result = run.result(started.elapsed().as_secs_f64());
    run.record(Event::RunFinished {
        summary: result.summary.clone(),
        seconds: result.seconds,
        peak_memory: result.peak_memory,
    })?;
    write_result(&out.join("result.json"), &result)?;
    Ok(result)
}

/// The base has to be in the format that the run's settings will be read back with.
fn check_base(experiment: &Experiment, base: &Base) -> Result<()> {
    let (asked, loaded) = (experiment.base.dtype, base.decoder.dtype());
    match asked == loaded {
        true => Ok(()),
        false => Err(Error::BaseDtype { asked, loaded }),
    }
}

/// Makes `out` the directory of this experiment, or checks that it already is.
fn claim(out: &Path, experiment: &Experiment, resume: bool) -> Result<()> {
    let config = out.join("config.toml");
    let resolved = experiment.to_toml();
    let problem = |problem: String| Error::RunDirectory {
        path: out.into(),
        problem,
    };
    match std::fs::read_to_string(&config) {
        Ok(_) if !resume => Err(problem(
            "already holds a run: go on with --resume, or name another directory with --out".into(),
        )),
        Ok(existing) if existing != resolved => Err(problem(format!(
            "holds a run with other settings ({}): start it elsewhere with --out",
            first_difference(&existing, &resolved)
        ))),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(out).map_err(|source| file_error(out, source))?;
            moe_core::atomic::write_file(&config, resolved.as_bytes())
                .map_err(|source| file_error(&config, source))
        }
        Err(source) => Err(file_error(&config, source)),
    }
}

/// The first line in which two texts differ, for people.
fn first_difference(was: &str, is: &str) -> String {
    let line = |line: Option<&str>| line.unwrap_or("nothing").to_owned();
    was.lines()
        .map(Some)
        .chain(std::iter::repeat(None))
        .zip(is.lines().map(Some).chain(std::iter::repeat(None)))
        .take(was.lines().count().max(is.lines().count()))
        .find(|(was, is)| was != is)
        .map_or_else(String::new, |(was, is)| {
            format!("there `{}`, now `{}`", line(was), line(is))
        })
}

fn write_result(path: &Path, result: &RunResult) -> Result<()> {
    let text = serde_json::to_vec_pretty(result).map_err(|error| file_error(path, error.into()))?;
    moe_core::atomic::write_file(path, &text).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: std::io::Error) -> Error {
    Error::File {
        path: path.into(),
        source,
    }
}
