//! MoCL (arXiv 2404.00228): an adapter per task; a text is answered by all of them, weighed by its likeness to their tasks.

use std::io;

use burn::tensor::{Device, Tensor};
use moe_core::model::Decoder;
use moe_lora::{Mix, Routing, Texts, mean_of_tokens};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Card, Finished, Loss, Method, Step, loss_of_hidden};
use crate::{learner::Learner, task_vectors::TaskVectors};

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
        let vectors = learner
            .task_vectors
            .as_ref()
            .expect("`prepare` adds task vectors");
        let mean = mean_of_tokens(base.embed(texts.tokens.clone()), texts.real.clone());
        let cosines = vectors.cosines(mean);
        let experts = self.active(task);
        let weights = TaskVectors::weights(cosines.clone(), &experts);
        (cosines, Mix::Weighted { experts, weights })
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

    fn prepare(
        &self,
        base: &Decoder,
        mut learner: Learner,
        _task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        learner.adapters.push_expert(rng.next_u64(), device);
        let mut vectors = learner
            .task_vectors
            .take()
            .unwrap_or_else(|| TaskVectors::new(base.config().d_model, rng, device));
        vectors.push(rng);
        learner.task_vectors = Some(vectors);
        learner
    }

    fn routing(&self, task: usize) -> Routing {
        Routing::Single(task)
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
        let hidden = learner.adapters.with_others_frozen(task).forward_mixed(
            base,
            &batch.texts,
            &mix,
            step.dropout.as_ref(),
        );
        let unlikeness = cosines.narrow(1, task, 1).mean().neg().add_scalar(1.0);
        loss_of_hidden(&step, hidden).plus(unlikeness)
    }

    fn finish(&mut self, learner: Learner, finished: Finished<'_>) -> Learner {
        self.learnt = self.active(finished.task);
        learner
    }

    fn memory(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&self.learnt)?)
    }

    fn restore(&mut self, memory: &[u8]) -> io::Result<()> {
        self.learnt = serde_json::from_slice(memory)?;
        Ok(())
    }
}
