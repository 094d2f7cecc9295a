//! What the user should hear of how a run ended.

use super::Run;
use crate::{error::Result, events::Event, metrics::AccuracyMatrix};

impl Run<'_> {
    /// Warns of every task that ends below what the model that had not learnt it had, and says what to try.
    pub(in crate::training) fn warn_of_losses(&mut self, matrix: &AccuracyMatrix) -> Result<()> {
        for task in matrix.worse_than_before() {
            let Some(message) = self.loss_of(task, matrix) else {
                continue;
            };
            self.record(Event::Warning { message })?;
        }
        Ok(())
    }

    fn loss_of(&self, task: usize, matrix: &AccuracyMatrix) -> Option<String> {
        let before = matrix.before(task)?;
        let now = matrix.get(matrix.learnt().checked_sub(1)?, task)?;
        let (name, training) = (&self.tasks[task].name, &self.tasks[task].settings.training);
        let way_out = match matrix.get(task, task) {
            Some(learnt) if learnt >= before => format!(
                "it had {learnt:.3} when it was learnt and was forgotten since: `moe-cl methods` says which methods keep earlier tasks as they are"
            ),
            _ => format!(
                "try more training.epochs (now {}), another training.learning_rate (now {}), or more texts (now {})",
                training.epochs,
                training.learning_rate,
                self.tasks[task].train.len(),
            ),
        };
        Some(format!(
            "task `{name}` ends at {now:.3}, below the {before:.3} of the model that had not learnt it; {way_out}"
        ))
    }
}
