//! Everything that is trained: LoRA experts with their gates, classification heads, and what one method has of its own.

use burn::module::Module;
use moe_core::model::Decoder;
use moe_lora::{Catalogue, Routing};
use serde::{Deserialize, Serialize};

use crate::{config::Objective, data::Collate, head::Head, methods::Own};

/// The trainable part of a continual learner; a frozen base stays outside.
#[derive(Module, Debug)]
pub struct Learner {
    /// Experts and gates.
    pub catalogue: Catalogue,
    /// Per task that is prepared: its head; none where answers are written as text.
    pub heads: Vec<Option<Head>>,
    /// What the method trains besides, where it does.
    pub own: Option<Own>,
    /// Per task that is prepared, in order: who answers for it.
    #[module(skip)]
    pub tasks: Vec<TaskExperts>,
    /// Who answers for the tasks that were imported, which stand behind all others: one expert each, whatever the method.
    #[module(skip)]
    pub imported: Vec<Routing>,
}

/// The experts of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskExperts {
    /// Who answers for it, and through which gate.
    pub answering: Routing,
    /// Who moves while it is learnt, gate included.
    pub trained: Routing,
}

impl TaskExperts {
    /// Experts that answer as they are trained.
    pub fn of(routing: Routing) -> Self {
        Self {
            trained: routing.clone(),
            answering: routing,
        }
    }
}

impl Learner {
    /// Experts alone, and no task.
    pub fn new(catalogue: Catalogue) -> Self {
        Self {
            catalogue,
            heads: Vec::new(),
            own: None,
            tasks: Vec::new(),
            imported: Vec::new(),
        }
    }

    /// The head of `task`; none where its answers are written as text.
    pub fn head(&self, task: usize) -> Option<&Head> {
        self.heads.get(task)?.as_ref()
    }

    /// How the answers of a `task` that is prepared are given.
    pub fn objective(&self, task: usize) -> Objective {
        match self.head(task) {
            Some(_) => Objective::Heads,
            None => Objective::Instruction,
        }
    }

    /// Who answers for `task`.
    ///
    /// # Panics
    /// When the task has not been prepared.
    pub fn answering(&self, task: usize) -> &Routing {
        match self.imported(task) {
            Some(routing) => routing,
            None => &self.tasks[task].answering,
        }
    }

    /// Who answers for a `task` that was imported; none of another one.
    pub fn imported(&self, task: usize) -> Option<&Routing> {
        self.imported.get(task.checked_sub(self.tasks.len())?)
    }

    /// Who moves while `task` is learnt.
    ///
    /// # Panics
    /// When the task has not been prepared.
    pub fn trained(&self, task: usize) -> &Routing {
        &self.tasks[task].trained
    }

    /// How batches are made for it: what is kept of the frozen base says nothing of a decoder of its own.
    pub fn collate<'a>(&self, base: Collate<'a>) -> Collate<'a> {
        match self.own {
            Some(Own::Decoder(_)) => Collate::padding(base.pad),
            _ => base,
        }
    }

    /// The decoder below the experts: the learner's own where it has one, else the frozen `base`.
    pub fn decoder<'a>(&'a self, base: &'a Decoder) -> &'a Decoder {
        match &self.own {
            Some(Own::Decoder(decoder)) => decoder,
            _ => base,
        }
    }
}
