//! Sequential fine-tuning, of one adapter (FT-P) or of the whole base (FT-F). The baseline that forgets.

use moe_lora::Routing;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Card, Method, NewTask, Options, Own, with_one_expert};
use crate::learner::{Learner, TaskExperts};

/// Which weights sequential fine-tuning moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// One LoRA expert (FT-P).
    #[default]
    Adapter,
    /// The base's own weights, and no adapter (FT-F). Every checkpoint holds a whole model.
    All,
}

/// Options of sequential fine-tuning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SequentialConfig {
    /// Which weights move.
    pub weights: Weights,
}

impl Options for SequentialConfig {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(Sequential::new(self.clone()))
    }
}

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

    fn adapts(&self) -> bool {
        self.options.weights == Weights::Adapter
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
