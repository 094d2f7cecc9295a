//! A linear probe: classification heads on the untouched base. What is above it was learnt by adapting.

use moe_lora::Routing;

use super::{Card, Method, NewTask, Options};
use crate::learner::{Learner, TaskExperts};

/// Heads and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct LinearProbe;

impl Options for LinearProbe {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for LinearProbe {
    fn name(&self) -> String {
        "linear_probe".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "a head per task on the untouched base",
            needs: "nothing besides the head",
            stores: "nothing",
            source: "baseline (Alain & Bengio, arXiv 1610.01644)",
            strength: "",
        }
    }

    fn adapts(&self) -> bool {
        false
    }

    fn prepare(&self, mut learner: Learner, _new: NewTask<'_>) -> Learner {
        learner.tasks.push(TaskExperts::of(Routing::Base));
        learner
    }
}
