//! Experts that are on disk and not in memory, until something asks for them.

use std::collections::BTreeSet;

use moe_lora::{ExpertId, ExpertInfo};

use super::Run;
use crate::{directory::Stored, error::Result, learner::Learner, training::read::expert_of};

impl Run<'_> {
    /// `learner` with the experts of `tasks`, of which those that are not in memory are read.
    pub(super) fn with_experts_of(
        &self,
        mut learner: Learner,
        tasks: impl Iterator<Item = usize>,
    ) -> Result<Learner> {
        let (parts, device) = (self.checkpoints.parts(), self.base.decoder.device());
        for task in tasks {
            for id in learner.answering(task).experts().to_vec() {
                let Some(stored) = self.stored.shelf.get(&id) else {
                    continue;
                };
                if learner.catalogue.find(id).is_none() {
                    let expert = expert_of(stored, &learner.catalogue, parts, &device)?;
                    learner.catalogue.insert(expert);
                }
            }
        }
        Ok(learner)
    }

    /// Puts the experts of the tasks before the last on the shelf: they are stored, and learning on does not read them.
    pub(super) fn shelve(&mut self) {
        if self.method.reads_all_experts() {
            return;
        }
        let recent = self
            .learner
            .tasks
            .iter()
            .skip(self.progress.task.saturating_sub(1));
        let keep: BTreeSet<ExpertId> = recent
            .flat_map(|task| {
                task.answering
                    .experts()
                    .iter()
                    .chain(task.trained.experts())
            })
            .copied()
            .collect();
        let catalogue = &mut self.learner.catalogue;
        let infos: Vec<ExpertInfo> = catalogue
            .experts()
            .iter()
            .map(|it| it.info.clone())
            .collect();
        for is in infos {
            if !keep.contains(&is.id)
                && let Some(part) = self.stored.experts.remove(&is.id)
            {
                catalogue.remove_expert(is.id);
                self.stored.shelf.insert(is.id, Stored { is, part });
            }
        }
    }
}
