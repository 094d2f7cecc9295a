//! Sequential fine-tuning, of one adapter (FT-P) or of the whole base (FT-F). The baseline that forgets.

use moe_lora::Routing;

use super::{Card, Method, NewTask, Own, with_one_expert};
use crate::{
    config::{SequentialConfig, Weights},
    learner::{Learner, TaskExperts},
};

/// The same weights for the whole stream, without any protection.
#[derive(Clone, Debug)]
pub struct Sequential {
    options: SequentialConfig,
}

impl Sequential {
    /// The method with its options.
    pub fn new(options: SequentialConfig) -> Self {
        Self { options }
    }
}

impl Method for Sequential {
    fn name(&self) -> String {
        match self.options.weights {
            Weights::Adapter => "sequential".into(),
            Weights::All => "sequential (all weights)".into(),
        }
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter (or all weights) trained through all tasks",
            needs: "nothing",
            stores: "nothing",
            source: "baseline",
            strength: "",
        }
    }

    fn prepare(&self, mut learner: Learner, new: NewTask<'_>) -> Learner {
        match self.options.weights {
            Weights::Adapter => with_one_expert(learner, new),
            Weights::All => {
                if new.task == 0 {
                    learner.own = Some(Own::copy_of(new.base));
                }
                learner.tasks.push(TaskExperts::of(Routing::Base));
                learner
            }
        }
    }

    fn stands_on(&self, learner: &Learner, task: usize) -> Option<Routing> {
        match self.options.weights {
            Weights::Adapter => Some(learner.answering(task).clone()),
            Weights::All => None,
        }
    }
}
