//! The end of a task.

use super::{Moved, Run};
use crate::{
    directory::Learnt,
    error::Result,
    events::now,
    methods::LearntTask,
    recognizer::pooled_features,
    seeds::{Purpose, Seeds},
};

impl Run<'_> {
    /// The method takes what it needs, and everything is scored.
    pub(super) fn finish_task(&mut self, index: usize, steps: usize) -> Result<()> {
        let mut moved = Moved::default();
        if steps > 0 {
            moved.task = Some(index);
            moved.experts.push(self.learner.trained(index).clone());
            moved.experts.push(self.learner.answering(index).clone());
        }
        let learner = self.learner.clone();
        let settings = &self.tasks[index].settings.training;
        self.learner = self.method.finish(
            learner.clone(),
            LearntTask {
                base: learner.decoder(&self.base.decoder),
                task: index,
                examples: &self.tasks[index].train,
                batch_size: settings.batch_size,
                collate: learner.collate(self.base.collate()),
                rng: Seeds(self.experiment.seed).rng(Purpose::Memory, index, 0),
            },
        );
        self.stored.forget_memory();
        self.recognizer.learn(&pooled_features(
            &self.base.decoder,
            self.base.pad(),
            self.recognizer.layer(),
            &self.tasks[index].train_texts,
        ))?;
        self.progress.task = index + 1;
        self.progress.step_in_task = 0;
        self.states[index].learnt = Some(Learnt {
            steps,
            step: self.progress.step,
            score: None,
        });
        let name = self.tasks[index].name.clone();
        self.times.learnt.insert(name, now());
        self.score_all(index + 1, &moved)?;
        let score = self.tasks[index].total(&self.known[index].texts.given.0);
        if let Some(learnt) = &mut self.states[index].learnt {
            learnt.score = score;
        }
        Ok(())
    }
}
