//! Learning without forgetting (arXiv 1606.09282): while a task is learnt, the outputs for earlier tasks stay near what they
//! were when it began.

use burn::module::Module;
use moe_lora::{ExpertId, Routing};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Card, LearntTask, Loss, Method, NewTask, Options, Step, distillation, loss_of_hidden,
    one_expert,
};
use crate::{
    learner::{Learner, TaskExperts},
    objective::answer_logits,
};

/// Options of learning without forgetting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LwfConfig {
    /// Weight of the distillation loss.
    #[schemars(range(min = 0, max = 1e12))]
    pub lambda: f64,
    /// Temperature T of `T² KL(softmax(old / T) ‖ softmax(new / T))`.
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
}

impl Default for LwfConfig {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            temperature: 2.0,
        }
    }
}

impl Options for LwfConfig {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(Lwf::new(self.clone()))
    }
}

/// One expert, distilled from its own past on the new task's texts.
///
/// Heads of earlier tasks stay as they are; the paper trains them along.
#[derive(Clone, Debug)]
pub struct Lwf {
    options: LwfConfig,
}

impl Lwf {
    /// The method with its options.
    pub fn new(options: LwfConfig) -> Self {
        Self { options }
    }
}

impl Method for Lwf {
    fn name(&self) -> String {
        "lwf".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter, held to its own earlier outputs",
            needs: "nothing",
            stores: "nothing (one copy of the expert in all)",
            source: "arXiv 1606.09282",
            strength: "lambda 1, temperature 2, as published",
        }
    }

    fn prepare(&self, mut learner: Learner, mut new: NewTask<'_>) -> Learner {
        let student = one_expert(&mut learner, &mut new);
        if new.task > 0 {
            learner.catalogue.copy_expert(student, new.name);
        }
        let experts = TaskExperts::of(Routing::Single(student));
        learner.tasks.push(experts);
        learner
    }

    /// The teacher goes with its task.
    fn finish(&mut self, mut learner: Learner, _learnt: LearntTask<'_>) -> Learner {
        if let Some(teacher) = teacher(&learner) {
            learner.catalogue.remove_expert(teacher);
        }
        learner
    }

    /// `L = L_task + λ T² KL(softmax(old / T) ‖ softmax(new / T))`: summed over the heads of earlier tasks, or at the answers'
    /// tokens over the vocabulary.
    fn loss(&self, step: Step<'_>) -> Loss {
        let Step {
            base,
            learner,
            batch,
            task,
            ..
        } = step;
        let hidden = learner
            .catalogue
            .forward(
                base,
                &batch.texts,
                learner.answering(task),
                None,
                step.dropout.as_ref(),
            )
            .hidden;
        let loss = loss_of_hidden(&step, hidden.clone());
        let Some(teacher) = teacher(learner) else {
            return loss;
        };
        let old = learner
            .catalogue
            .valid()
            .forward(base, &batch.texts, &Routing::Single(teacher), None, None)
            .hidden;
        let temperature = self.options.temperature;
        let held = match learner.head(task) {
            Some(head) => {
                let old = head.features(old, batch);
                let new = head.features(hidden, batch);
                let heads = learner.heads[..task].iter().flatten().map(|head| {
                    let weight = head.weight.val().detach();
                    let said = old.clone().matmul(weight.clone());
                    distillation(said, new.clone().matmul(weight), temperature)
                });
                heads.reduce(|sum, part| sum + part)
            }
            None => Some(distillation(
                answer_logits(base, old, batch),
                answer_logits(base, hidden, batch),
                temperature,
            )),
        };
        match held {
            Some(held) => loss.plus(held * (self.options.lambda * step.share())),
            None => loss,
        }
    }
}

/// The copy of the expert from when the task began, which is never trained; none while the first task is learnt.
fn teacher(learner: &Learner) -> Option<ExpertId> {
    let mut copies = learner.catalogue.experts().iter().rev();
    let newest = copies.find(|expert| expert.info.origin.parent.is_some())?;
    Some(newest.id())
}
