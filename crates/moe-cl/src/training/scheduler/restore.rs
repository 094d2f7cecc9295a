//! A run put back to where a checkpoint stood.

use super::Run;
use crate::{
    directory::Saved,
    error::Result,
    recognizer::from_f32_bytes,
    training::{infer::Known, optimizer::with_state, prepare::fresh_optimizer, session::ReadBack},
};

impl Run<'_> {
    /// Puts the run where the checkpoint stood.
    ///
    /// # Errors
    /// When a part is damaged or does not fit.
    pub(in crate::training) fn restore(&mut self, from: ReadBack) -> Result<()> {
        let saved = &from.saved;
        let state = &saved.state;
        self.learner = from.model.learner;
        self.recognizer = from.model.recognizer;
        self.method
            .restore(&from.memory)
            .map_err(|error| saved.damaged(format!("method memory: {error}")))?;
        let current = self.tasks.get(state.progress.task);
        let training = current.map_or(&self.experiment.training, |task| &task.settings.training);
        self.optimizer = fresh_optimizer(training);
        if let Some(bytes) = from.optimizer {
            let read = with_state(fresh_optimizer(training), &self.learner, bytes);
            self.optimizer = read.map_err(|error| saved.damaged(format!("optimizer: {error}")))?;
        }
        self.progress = state.progress.clone();
        self.imported.clone_from(&state.imported);
        self.times = saved.times.clone();
        self.stages = saved.stages()?;
        let stages = self.stages.iter().cloned();
        self.stored.stages = stages.zip(state.stages.iter().cloned()).collect();
        for (task, stored) in state.tasks.iter().enumerate() {
            if let Some(part) = &stored.answers {
                let known: Known = saved.json(part)?;
                self.stored
                    .known
                    .insert(task, (known.clone(), part.clone()));
                self.known[task] = known;
            }
            self.restore_features(saved, task)?;
        }
        self.stored.take_over(state, &self.learner.catalogue);
        Ok(())
    }

    /// What the recognizer reads of a task's texts, as far as it is stored for the split that is scored now.
    fn restore_features(&mut self, saved: &Saved, task: usize) -> Result<()> {
        let stored = saved.state.tasks[task].features.as_ref();
        let split = self.experiment.evaluation.split;
        let Some(stored) = stored.filter(|it| it.split == split && self.features.len() == task)
        else {
            return Ok(());
        };
        let rows = self.tasks[task].evaluation.len();
        let d_model = self.base.decoder.config().d_model;
        let matrix = from_f32_bytes(rows, d_model, &saved.parts.get(&stored.part)?);
        self.features
            .push(matrix.ok_or_else(|| saved.damaged("features of other texts"))?);
        Ok(())
    }
}
