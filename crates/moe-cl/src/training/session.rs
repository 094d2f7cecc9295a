//! The time in which a process writes into a run's directory: what it goes on from, its log, its end.

use std::{io, path::Path, time::Instant};

use super::{
    memory::PeakMemory,
    read::{Model, memory_of, model_of, needed},
    result::{RunResult, write_result},
    scheduler::Run,
    stream::Task,
};
use crate::{
    base::Base,
    config::Experiment,
    directory::{Checkpoints, Saved, TaskState},
    error::{Error, Result},
    events::{Event, JsonLog, Recorder},
    methods::Piece,
};

/// Name of the log's file.
pub(super) const EVENTS: &str = "events.jsonl";

/// A checkpoint with all that is in it.
pub(super) struct ReadBack {
    /// What it says.
    pub saved: Saved,
    /// What it holds.
    pub model: Model,
    /// What the method remembers.
    pub memory: Vec<Piece>,
    /// The optimiser's state, in the middle of a task.
    pub optimizer: Option<Vec<u8>>,
}

/// Reads a checkpoint back whole, to go on from, and mends what can be mended of it.
///
/// # Errors
/// When it is of another base, or a part is damaged.
pub(super) fn read_back(saved: &Saved, base: &Base, allow_other_base: bool) -> Result<ReadBack> {
    if !allow_other_base {
        base.check(&saved.state.base.identity)?;
    }
    let saved = &saved.clone().mending()?;
    let optimizer = saved.state.layout.optimizer.as_ref();
    Ok(ReadBack {
        model: model_of(saved, base, needed(saved))?,
        memory: memory_of(saved)?,
        optimizer: optimizer.map(|part| saved.parts.get(part)).transpose()?,
        saved: saved.clone(),
    })
}

/// A process that writes into `out`, which it has locked.
pub(super) struct Session<'a> {
    experiment: &'a Experiment,
    base: &'a Base,
    out: &'a Path,
}

impl<'a> Session<'a> {
    /// Of a run with the settings of `experiment`.
    pub(super) fn new(experiment: &'a Experiment, base: &'a Base, out: &'a Path) -> Self {
        Self {
            experiment,
            base,
            out,
        }
    }

    /// Goes on from a checkpoint, or begins, with these tasks, and does `work`.
    ///
    /// # Errors
    /// What `work` fails with, [`Error::Stopped`] where a recorder asked to stop, or when the directory cannot be written.
    pub(super) fn run<T>(
        &self,
        tasks: Vec<(Task, TaskState)>,
        from: Option<ReadBack>,
        warnings: Vec<String>,
        recorder: &mut dyn Recorder,
        work: impl FnOnce(&mut Run<'_>) -> Result<T>,
    ) -> Result<T> {
        let path = self.out.join(EVENTS);
        let last = from.as_ref().map(|from| &from.saved.state.progress);
        let resumed_at = last.map(|last| last.step);
        let log = match last {
            Some(last) => JsonLog::resume(&path, last),
            None => JsonLog::create(&path),
        };
        let mut log = log.map_err(|source| Error::File { path, source })?;
        let mut all: Vec<&mut dyn Recorder> = vec![&mut log, recorder];
        let newest = from.as_ref().map(|from| from.saved.path.as_path());
        let mut checkpoints = Checkpoints::open(self.out, newest)?;
        if let Some(newest) = newest {
            checkpoints.prune(newest, self.experiment.training.keep)?;
        }
        checkpoints.sweep(tasks.iter().map(|(_, state)| state))?;
        let mut run = Run::new(self.experiment, self.base, tasks, checkpoints, &mut all)?;
        if let Some(from) = from {
            run.restore(from)?;
        }
        let started = Event::RunStarted {
            name: self.experiment.name.clone(),
            method: run.method_name(),
            seed: self.experiment.seed,
            tasks: run.task_names(),
            total_steps: run.total_steps(),
            resumed_at,
        };
        run.record(started)?;
        for message in warnings {
            run.record(Event::Warning { message })?;
        }
        run.trunk_warning()?;
        match work(&mut run) {
            Err(Error::Recorder(error)) if error.kind() == io::ErrorKind::Interrupted => {
                Err(run.stop()?)
            }
            done => done,
        }
    }
}

/// When a process began its part of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    at: Instant,
    memory: PeakMemory,
}

impl Started {
    /// Now.
    pub(super) fn now() -> Self {
        Self {
            at: Instant::now(),
            memory: PeakMemory::begin(),
        }
    }
}

/// Says that all that was to be learnt is, and writes the result.
///
/// # Errors
/// When it cannot be written.
pub(super) fn conclude(run: &mut Run<'_>, out: &Path, started: Started) -> Result<RunResult> {
    let mut result = run.result();
    result.times.seconds = started.at.elapsed().as_secs_f64();
    result.times.peak_memory = started.memory.bytes();
    run.warn_of_losses(&result.matrix)?;
    run.record(Event::RunFinished {
        summary: result.summary.clone(),
        seconds: result.times.seconds,
        peak_memory: result.times.peak_memory,
    })?;
    write_result(out, &result)?;
    Ok(result)
}

/// Writes the result that a checkpoint tells, and that the run is complete with it.
///
/// # Errors
/// When a part is damaged, or the disk refuses.
pub(super) fn conclude_stored(out: &Path, saved: &Saved) -> Result<()> {
    let result = RunResult::of_checkpoint(saved)?;
    let mut checkpoints = Checkpoints::open(out, Some(&saved.path))?;
    checkpoints.prune(&saved.path, saved.state.experiment.training.keep)?;
    checkpoints.sweep(std::iter::empty())?;
    write_result(out, &result)?;
    let path = out.join(EVENTS);
    let log = JsonLog::resume(&path, &saved.state.progress);
    let mut log = log.map_err(|source| Error::File { path, source })?;
    log.record(&Event::RunStarted {
        name: result.name,
        method: result.method,
        seed: result.seed,
        tasks: result.tasks,
        total_steps: result.steps,
        resumed_at: Some(result.steps),
    })?;
    log.record(&Event::RunFinished {
        summary: result.summary,
        seconds: 0.0,
        peak_memory: None,
    })?;
    Ok(())
}
