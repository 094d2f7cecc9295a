//! Multi-task training: all tasks' data at once, with one adapter. The upper bound that continual methods are held against.

use std::ops::Range;

use super::{Card, Method, Options};

/// One LoRA expert that learns everything in the first stage. The stages after it learn nothing, so that every row of the
/// accuracy matrix is the same and BWT and forgetting are zero by construction.
#[derive(Clone, Copy, Debug)]
pub struct Joint;

impl Options for Joint {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for Joint {
    fn name(&self) -> String {
        "joint".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter, all tasks' data together: upper bound",
            needs: "nothing",
            stores: "nothing, but trains on all data at once",
            source: "baseline",
            strength: "",
        }
    }

    fn sealed(&self) -> Option<&'static str> {
        Some("joint training learns all tasks' data at once, in the first stage")
    }

    fn stage(&self, task: usize, tasks: usize) -> Range<usize> {
        match task {
            0 => 0..tasks,
            _ => task..task,
        }
    }
}
