//! A run put on disk, and a run put back to where a checkpoint stood.

use super::Run;
use crate::{
    error::{Error, Result},
    events::Event,
    training::{
        prepare::fresh_optimizer,
        state::{self, Saved},
    },
};

/// Mid-task checkpoints that are kept.
const NEWEST_KEPT: usize = 2;

impl Run<'_> {
    /// Puts the run where the checkpoint stood.
    pub(in crate::training) fn restore(&mut self, saved: &Saved) -> Result<()> {
        let started = usize::from(saved.progress.step_in_task > 0);
        let prepared = saved.progress.task + started;
        let learner = (0..prepared).fold(self.learner.clone(), |learner, task| {
            self.prepare(learner, task)
        });
        self.learner = saved.learner(learner)?;
        self.optimizer = saved.optimizer(fresh_optimizer(self.experiment))?;
        self.router = saved.router(self.router.clone())?;
        self.progress = saved.progress.clone();
        self.method
            .restore(&saved.memory)
            .map_err(|error| Error::Checkpoint {
                path: saved.path.clone(),
                reason: format!("method memory: {error}"),
            })?;
        let mut end = 0;
        for index in 0..self.progress.task {
            end += self.steps(index).len();
            self.task_ends.push(end);
        }
        Ok(())
    }

    /// Writes a checkpoint of the run as it stands.
    pub(super) fn save(&mut self) -> Result<()> {
        let memory = self.method.memory().map_err(|error| Error::Checkpoint {
            path: self.checkpoints.clone(),
            reason: format!("method memory: {error}"),
        })?;
        self.method_memory = memory.len() as u64;
        state::save(
            &self.checkpoints,
            &self.progress,
            &self.learner,
            &self.optimizer,
            &self.router,
            memory,
        )?;
        state::prune(&self.checkpoints, &self.task_ends, NEWEST_KEPT)?;
        self.record(Event::CheckpointSaved {
            step: self.progress.step,
        })
    }
}
