//! What the routers of a model choose for the texts that are scored.

use std::path::Path;

use moe_lora::Mix;
use moe_lora::router::Recorded;

use super::trained::Trained;
use crate::{
    data::Example,
    error::{Error, Result},
    task_model::TaskChoice,
};

impl Trained<'_> {
    /// Writes [`Self::routings`] to a file of JSON Lines ([`Recorded::read_all`] reads it).
    ///
    /// # Errors
    /// As there, or when it cannot be written.
    pub fn record_routing(&self, only: Option<usize>, path: &Path) -> Result<()> {
        Ok(Recorded::write_all(path, &self.routings(only)?)?)
    }

    /// The choices for every text that is scored of all known tasks, or of one `only`, with the task given: batch by batch of the
    /// evaluation, and in each layer by layer. Those of the method's own routers, or where it has none of a sparse base's.
    ///
    /// # Errors
    /// When the kept rows are damaged, or nothing routes tokens.
    pub fn routings(&self, only: Option<usize>) -> Result<Vec<Recorded>> {
        let (base, learner) = (self.base, &self.learner);
        let decoder = learner.decoder(&base.decoder);
        let mut all = Vec::new();
        let tasks = 0..self.experiment.tasks.len();
        for task in tasks.filter(|&it| only.is_none_or(|only| only == it)) {
            let stream = self.kept(task, self.experiment.evaluation.split)?;
            let collate = learner.collate(base.collate());
            for batch in stream.evaluation_batches(self.experiment.evaluation.batch_size) {
                let examples: Vec<&Example> =
                    batch.iter().map(|&i| &stream.evaluation[i]).collect();
                let batch = collate.batch(&examples, &decoder.device());
                let choice = TaskChoice::of(self.method.as_ref(), task);
                let Mix::Routed(routing) = choice.mix(decoder, learner, &batch.texts) else {
                    return Err(Error::NoRouter);
                };
                let catalogue = &learner.catalogue;
                let forward = catalogue.forward(decoder, &batch.texts, &routing, None, None);
                let own = forward.dispatched.iter();
                let before = all.len();
                all.extend(own.map(|(layer, it)| Recorded::of(*layer, it)));
                if all.len() == before {
                    let tokens = batch.texts.routed_tokens();
                    let of_base = forward.routed.iter();
                    all.extend(of_base.map(|(layer, it)| Recorded::of_base(*layer, it, &tokens)));
                }
                if all.len() == before {
                    return Err(Error::NoRouter);
                }
            }
        }
        Ok(all)
    }
}
