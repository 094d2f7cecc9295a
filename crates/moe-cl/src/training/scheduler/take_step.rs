//! One step of a run: the learner moves, the progress is counted, the event recorded; nonsense ends the run.

use std::time::Instant;

use burn::optim::GradientsParams;

use super::Run;
use crate::{
    data::Example,
    error::{Error, Result},
    events::Event,
    training::{
        optimizer::with_gradient,
        schedule::warmup_steps,
        step::{StepInput, gradients, rebalanced, trained_parameters},
        stream::StageStep,
    },
};

impl Run<'_> {
    /// One optimiser step and its event: the one at `position` of `total` of its stage, the `first` of its task in this process or
    /// not.
    pub(super) fn take_step(
        &mut self,
        stage_step: &StageStep,
        (position, total): (usize, usize),
        first: bool,
    ) -> Result<()> {
        let start = Instant::now();
        let index = stage_step.task;
        let task = &self.tasks[index];
        let training = &task.settings.training;
        let warmup = warmup_steps(training.warmup_ratio, total);
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
        let (gradients, figures) =
            gradients(&input, &self.learner).map_err(|what| Error::Diverged {
                task: task.name.clone(),
                step,
                what,
            })?;
        if first {
            self.check_gradients(index, &gradients)?;
        }
        let learner = self.learner.clone();
        let learner = self.optimizer.step(learning_rate, learner, gradients);
        self.learner = rebalanced(learner, index, &figures);
        let seconds = start.elapsed().as_secs_f64();
        self.progress.step = step;
        self.progress.step_in_task += 1;
        self.progress.real_tokens += figures.real_tokens as u64;
        self.times.training_seconds += seconds;
        self.record(Event::Step {
            task: self.progress.task,
            step,
            loss: figures.loss,
            figures: figures.figures,
            learning_rate,
            gradient_norm: figures.gradient_norm,
            real_tokens: figures.real_tokens,
            balance: figures.balance,
            seconds,
        })
    }

    /// Refuses a part that the task trains but that no gradient reached.
    fn check_gradients(&self, index: usize, gradients: &GradientsParams) -> Result<()> {
        let method = self.method.as_ref();
        let there = with_gradient(&self.learner, gradients);
        let parts = trained_parameters(method, &self.learner, index);
        let missing: Vec<String> = parts
            .into_iter()
            .filter(|part| !part.ids.iter().all(|id| there.contains(id)))
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
