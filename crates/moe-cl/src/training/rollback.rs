//! Back to what the model was right after a task.

use std::path::{Path, PathBuf};

use super::session::conclude_stored;
use crate::{
    directory::{Checkpoints, Lock, Saved, Stage, State, newest_saved, run_of},
    error::{Error, Result},
};

/// A way back, before it is taken.
#[derive(Clone, Debug)]
pub struct Rollback {
    out: PathBuf,
    saved: Saved,
    /// The tasks that the model would no longer have, the one that is being learnt included.
    pub lost: Vec<String>,
    /// Optimiser steps that would be lost.
    pub steps: usize,
}

impl Rollback {
    /// The way back to right after the task called `to`.
    ///
    /// # Errors
    /// When the model has not learnt it, or the checkpoint from then is not kept.
    pub fn plan(model: &Path, to: &str) -> Result<Self> {
        let out = run_of(model)?;
        let now = newest_saved(&out, |_| true)?;
        let now = now.ok_or_else(|| Error::RunDirectory {
            path: out.clone(),
            problem: "has no whole checkpoint".into(),
        })?;
        let names = |state: &State| -> Vec<String> {
            state
                .tasks
                .iter()
                .map(|task| task.config.name.clone())
                .collect()
        };
        let (known, learnt) = (names(&now.state), now.state.progress.task);
        let place = known.iter().position(|name| name == to);
        let Some(place) = place.filter(|&place| place < learnt) else {
            return Err(Error::UnknownTask {
                name: to.into(),
                known: known[..learnt].join(", "),
            });
        };
        let right_after =
            |state: &State| state.is_between_tasks() && state.progress.task == place + 1;
        let then = newest_saved(&out, right_after)?;
        let Some(saved) = then else {
            return Err(Error::RunDirectory {
                path: out,
                problem: format!(
                    "the checkpoint right after task {to:?} is not kept any more (`training.keep` = {})",
                    now.state.experiment.training.keep
                ),
            });
        };
        let begun = learnt + usize::from(now.state.progress.step_in_task > 0);
        // What was imported since then is in no checkpoint from then.
        let names = |state: &State| -> Vec<String> {
            let imported = state.imported.iter();
            imported.map(|task| task.config.name.clone()).collect()
        };
        let (mut lost, there) = (
            known[place + 1..begun.max(place + 1)].to_vec(),
            names(&saved.state),
        );
        lost.extend(
            names(&now.state)
                .into_iter()
                .filter(|name| !there.contains(name)),
        );
        Ok(Self {
            lost,
            steps: now.state.progress.step - saved.state.progress.step,
            saved,
            out,
        })
    }

    /// Goes back. Killed in between, the model is what it was after some task, and the same call goes on.
    ///
    /// # Errors
    /// When another process writes into the directory, or the disk refuses.
    pub fn apply(self) -> Result<()> {
        let Self { out, saved, .. } = self;
        let _lock = Lock::take(&out)?;
        let mut checkpoints = Checkpoints::open(&out, Some(&saved.path))?;
        checkpoints.remove_after(&saved.path)?;
        // Tasks that were planned then are no longer.
        let mut state = saved.state.clone();
        state.tasks.truncate(state.progress.task);
        for part in &mut state.stages {
            let mut stage: Stage = saved.json(part)?;
            stage.scores.truncate(state.tasks.len());
            let bytes = serde_json::to_vec(&stage).map_err(std::io::Error::from)?;
            *part = saved.parts.put(&bytes)?;
        }
        checkpoints.save(&state, &saved.times, state.experiment.training.keep)?;
        conclude_stored(&out, &Saved { state, ..saved })
    }
}
