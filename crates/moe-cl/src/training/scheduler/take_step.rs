//! One step of a run: the learner moves, the progress is counted, the event recorded; nonsense ends the run.

use std::time::Instant;

use super::Run;
use crate::{
    data::Example,
    error::{Error, Result},
    events::Event,
    training::{
        step::{StepFigures, StepInput, optimizer_step, trained_parameters},
        stream::StageStep,
    },
};

impl Run<'_> {
    /// One optimiser step and its event.
    pub(super) fn take_step(
        &mut self,
        stage_step: &StageStep,
        position: usize,
        total: usize,
    ) -> Result<()> {
        let start = Instant::now();
        let index = stage_step.task;
        let task = &self.tasks[index];
        let training = &task.settings.training;
        let warmup = (training.warmup_ratio * total as f64).round() as usize;
        let learning_rate =
            training.learning_rate * training.schedule.factor(position, warmup, total);
        let examples: Vec<Vec<&Example>> = stage_step
            .micro_batches
            .iter()
            .map(|batch| batch.iter().map(|&i| &task.train[i]).collect())
            .collect();
        let step = self.progress.step + 1;
        let input = StepInput {
            settings: &task.settings,
            seed: self.experiment.seed,
            base: &self.base.decoder,
            method: self.method.as_ref(),
            task: index,
            micro_batches: &examples,
            step,
            learning_rate,
            collate: self.base.collate(),
        };
        let (learner, figures) = optimizer_step(&input, self.learner.clone(), &mut self.optimizer);
        if !figures.loss.is_finite() || !figures.gradient_norm.is_finite() {
            return Err(Error::Diverged {
                task: task.name.clone(),
                step,
                loss: figures.loss,
            });
        }
        if position == 0 {
            self.check_gradients(index, &figures)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        self.learner = learner;
        self.progress.step = step;
        self.progress.step_in_task += 1;
        self.progress.real_tokens += figures.real_tokens as u64;
        self.progress.training_seconds += seconds;
        self.record(Event::Step {
            task: self.progress.task,
            step,
            loss: figures.loss,
            figures: figures.figures,
            learning_rate,
            gradient_norm: figures.gradient_norm,
            real_tokens: figures.real_tokens,
            seconds,
        })
    }

    /// Refuses a part that the task trains but that no gradient reached.
    fn check_gradients(&self, index: usize, figures: &StepFigures) -> Result<()> {
        let method = self.method.as_ref();
        let parts = trained_parameters(method, &self.learner, index);
        let missing: Vec<String> = parts
            .into_iter()
            .filter(|part| !part.ids.iter().all(|id| figures.with_gradient.contains(id)))
            .map(|part| part.name)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::NoGradient {
            task: self.tasks[index].name.clone(),
            parameters: missing.join(", "),
        })
    }
}
