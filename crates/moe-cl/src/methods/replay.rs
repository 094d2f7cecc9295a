//! Experience replay: every step of the current task goes with examples of earlier tasks, drawn from a reservoir
//! (Chaudhry et al., arXiv 1902.10486).

use std::io;

use super::{
    Card, LearntTask, Loss, Method, Options, Piece, RehearsalConfig, Reservoir, Step,
    rehearsal::rehearsal_loss, routed_loss,
};
use crate::learner::Learner;

/// One expert and a reservoir of examples.
#[derive(Clone, Debug)]
pub struct Replay {
    options: RehearsalConfig,
    reservoir: Reservoir,
}

impl Replay {
    /// The method with its options, before its first task.
    pub fn new(options: RehearsalConfig) -> Self {
        Self {
            options,
            reservoir: Reservoir::default(),
        }
    }
}

impl Options for Replay {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(self.clone())
    }
}

impl Method for Replay {
    fn name(&self) -> String {
        format!("replay ({})", self.options.budget)
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter, trained on earlier examples as well",
            needs: "nothing",
            stores: "examples, a fixed number in all",
            source: "arXiv 1902.10486",
            strength: "64 examples in all, 8 of them with every step of 8: as many as the step has, as published; the number kept is this project's",
        }
    }

    /// `L = L_task + L_replayed`, each the mean over its own texts.
    fn loss(&self, mut step: Step<'_>) -> Loss {
        let loss = routed_loss(&step, step.learner.answering(step.task));
        if !step.place.first {
            return loss;
        }
        let drawn = self.reservoir.draw(self.options.batch_size, &mut step.rng);
        match rehearsal_loss(step.base, step.learner, step.collate, &drawn) {
            Some(replayed) => loss.plus(replayed),
            None => loss,
        }
    }

    /// What is rehearsed goes through the head of its own task.
    fn trains_earlier_heads(&self) -> bool {
        true
    }

    fn finish(&mut self, learner: Learner, learnt: LearntTask<'_>) -> Learner {
        self.reservoir.take(learnt, self.options.budget);
        learner
    }

    fn memory(&self) -> io::Result<Vec<Piece>> {
        self.reservoir.memory()
    }

    fn restore(&mut self, memory: &[Piece]) -> io::Result<()> {
        self.reservoir = Reservoir::restored(memory)?;
        Ok(())
    }
}
