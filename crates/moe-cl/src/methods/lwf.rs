//! Learning without forgetting (arXiv 1606.09282): while a task is learnt, the outputs for earlier tasks stay near what they
//! were when it began.

use burn::{module::Module, tensor::Device};
use moe_core::model::Decoder;
use moe_lora::Routing;
use rand_chacha::ChaCha8Rng;

use super::{Card, Loss, Method, Step, distillation, loss_of_hidden, with_one_expert};
use crate::{
    config::{LwfConfig, Objective},
    learner::Learner,
    objective::answer_logits,
};

/// The expert that is trained and answers.
const STUDENT: usize = 0;
/// Its copy from when the task began; never trained.
const TEACHER: usize = 1;

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

    fn prepare(
        &self,
        _base: &Decoder,
        learner: Learner,
        task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        let mut learner = with_one_expert(learner, rng, device);
        if task > 0 {
            for bank in &mut learner.adapters.banks {
                bank.experts.truncate(TEACHER);
            }
            learner.adapters.init_expert_from(STUDENT);
        }
        learner
    }

    fn routing(&self, _task: usize) -> Routing {
        Routing::Single(STUDENT)
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
            .adapters
            .forward(
                base,
                &batch.texts,
                &Routing::Single(STUDENT),
                None,
                step.dropout.as_ref(),
            )
            .hidden;
        let loss = loss_of_hidden(&step, hidden.clone());
        if task == 0 {
            return loss;
        }
        let old = learner
            .adapters
            .valid()
            .forward(base, &batch.texts, &Routing::Single(TEACHER), None, None)
            .hidden;
        let temperature = self.options.temperature;
        let held = match step.objective {
            Objective::Heads => {
                let head = &learner.heads[task];
                let old = head.features(old, batch);
                let new = head.features(hidden, batch);
                let heads = learner.heads[..task].iter().map(|head| {
                    let weight = head.weight.val().detach();
                    let said = old.clone().matmul(weight.clone());
                    distillation(said, new.clone().matmul(weight), temperature)
                });
                heads.reduce(|sum, part| sum + part)
            }
            Objective::Instruction => Some(distillation(
                answer_logits(base, old, batch),
                answer_logits(base, hidden, batch),
                temperature,
            )),
        };
        match held {
            Some(held) => loss.plus(held * self.options.lambda),
            None => loss,
        }
    }
}
