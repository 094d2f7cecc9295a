//! MoCL (arXiv 2404.00228): an adapter per task; a text is answered by all of them, weighed by its likeness to their tasks.

use std::io;

use burn::tensor::Tensor;
use moe_core::model::Decoder;
use moe_lora::{Mix, Routing, Texts, mean_of_tokens};

use super::{
    Card, LearntTask, Loss, Method, NewTask, Options, Own, Piece, Step, loss_of_hidden, only_json,
    with_own_trained,
};
use crate::{
    learner::{Learner, TaskExperts},
    task_vectors::TaskVectors,
};

/// Name of what it remembers.
const LEARNT: &str = "learnt";

/// Experts and vectors of the tasks. Only the current task's expert moves; all vectors and the projection do.
#[derive(Clone, Debug, Default)]
pub struct Mocl {
    /// Tasks that have been learnt, in order.
    learnt: Vec<usize>,
}

impl Mocl {
    /// The method after the tasks `learnt`, in the order in which they were.
    pub fn after(learnt: Vec<usize>) -> Self {
        Self { learnt }
    }

    /// The tasks whose experts answer for `task`: those learnt so far, and it.
    fn active(&self, task: usize) -> Vec<usize> {
        let mut active = self.learnt.clone();
        if !active.contains(&task) {
            active.push(task);
        }
        active
    }

    /// Cosines of the texts to all tasks, `[batch, tasks]`, and the mix for `task` that follows from them.
    ///
    /// # Panics
    /// When the learner has no task vectors.
    pub fn weigh(
        &self,
        base: &Decoder,
        learner: &Learner,
        task: usize,
        texts: &Texts,
    ) -> (Tensor<2>, Mix) {
        let Some(Own::TaskVectors(vectors)) = &learner.own else {
            panic!("`prepare` adds task vectors");
        };
        let mean = mean_of_tokens(base.embed(texts.tokens.clone()), texts.real.clone());
        let cosines = vectors.cosines(mean);
        let tasks = self.active(task);
        let weights = TaskVectors::weights(cosines.clone(), &tasks);
        let experts = tasks
            .iter()
            .flat_map(|&task| learner.answering(task).experts());
        let experts = experts.copied().collect();
        (cosines, Mix::Weighted { experts, weights })
    }
}

impl Options for Mocl {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(self.clone())
    }
}

impl Method for Mocl {
    fn name(&self) -> String {
        "mocl".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "an adapter per task, weighed by likeness to the tasks",
            needs: "nothing, but evaluates every adapter",
            stores: "an expert, a vector",
            source: "arXiv 2404.00228",
            strength: "",
        }
    }

    fn prepare(&self, mut learner: Learner, mut new: NewTask<'_>) -> Learner {
        let own = new.fresh_expert(&mut learner);
        learner.tasks.push(TaskExperts::of(Routing::Single(own)));
        let mut vectors = match learner.own {
            Some(Own::TaskVectors(vectors)) => vectors,
            _ => TaskVectors::new(new.base.config().d_model, &mut new.rng, &new.device),
        };
        vectors.push(&mut new.rng);
        learner.own = Some(Own::TaskVectors(vectors).identified());
        learner
    }

    /// On all experts and vectors.
    fn stands_on(&self, _learner: &Learner, _task: usize) -> Option<Routing> {
        None
    }

    fn reads_all_experts(&self) -> bool {
        true
    }

    fn mix(&self, base: &Decoder, learner: &Learner, task: usize, texts: &Texts) -> Mix {
        self.weigh(base, learner, task, texts).1
    }

    /// `L = L_task + mean(1 − cos(q, v_t))`: the vector and the texts of its task draw each other near.
    fn loss(&self, step: Step<'_>) -> Loss {
        let Step {
            base,
            learner,
            batch,
            task,
            ..
        } = step;
        let (cosines, mix) = self.weigh(base, learner, task, &batch.texts);
        let hidden = with_own_trained(learner, task).forward_mixed(
            base,
            &batch.texts,
            &mix,
            step.dropout.as_ref(),
        );
        let unlikeness = cosines.narrow(1, task, 1).mean().neg().add_scalar(1.0);
        loss_of_hidden(&step, hidden).plus(unlikeness * step.share_of_texts())
    }

    fn finish(&mut self, learner: Learner, learnt: LearntTask<'_>) -> Learner {
        self.learnt = self.active(learnt.task);
        learner
    }

    fn memory(&self) -> io::Result<Vec<Piece>> {
        Ok(vec![Piece::json(LEARNT, &self.learnt)?])
    }

    fn restore(&mut self, memory: &[Piece]) -> io::Result<()> {
        self.learnt = only_json(memory, LEARNT)?;
        Ok(())
    }
}
