//! One adapter per task, trained alone: nothing is forgotten and nothing is shared.

use moe_lora::Routing;

use super::{Card, Method, NewTask, Options};
use crate::learner::{Learner, TaskExperts};

/// A fresh LoRA expert for every task.
#[derive(Clone, Copy, Debug)]
pub struct PerTask;

impl Options for PerTask {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for PerTask {
    fn name(&self) -> String {
        "per_task".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "an adapter per task, trained alone",
            needs: "task id",
            stores: "an expert",
            source: "baseline",
            strength: "",
        }
    }

    fn prepare(&self, mut learner: Learner, mut new: NewTask<'_>) -> Learner {
        let own = new.fresh_expert(&mut learner);
        learner.tasks.push(TaskExperts::of(Routing::Single(own)));
        learner
    }
}
