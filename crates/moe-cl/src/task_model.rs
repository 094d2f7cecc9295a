//! A learner as a language model that answers for a task, whatever its method.

use std::cell::RefCell;

use burn::tensor::{Bool, Int, Tensor};
use moe_core::{
    generate::CausalLm,
    model::{Decoder, KvCache},
};
use moe_lora::{Mix, Mixed, Routing, Texts};

use crate::{learner::Learner, methods::Method};

/// Whose experts answer: those of a task, or a method's fallback near that task.
#[derive(Clone, Copy)]
pub struct TaskChoice<'a> {
    /// The continual method.
    pub method: &'a dyn Method,
    /// The task, or the nearest one.
    pub task: usize,
    /// Whether the text belongs to no known task. A method without a fallback answers as for the nearest one.
    pub unknown: bool,
}

impl<'a> TaskChoice<'a> {
    /// For texts of a task.
    pub fn of(method: &'a dyn Method, task: usize) -> Self {
        Self {
            method,
            task,
            unknown: false,
        }
    }

    /// How `texts` are answered by a `learner` off the autodiff device.
    pub fn mix(&self, base: &Decoder, learner: &Learner, texts: &Texts) -> Mix {
        if let Some(routing) = learner.imported(self.task) {
            return Mix::Routed(routing.clone());
        }
        let fallback = match self.unknown {
            true => self.method.fallback(learner, self.task),
            false => None,
        };
        fallback.unwrap_or_else(|| self.method.mix(base, learner, self.task, texts))
    }
}

/// The experts that a method names for a task, mixed anew for every prompt: a mix may depend on the text, and then stays what
/// the prompt made it while the answer is written.
pub struct TaskModel<'a> {
    base: &'a Decoder,
    learner: &'a Learner,
    choice: TaskChoice<'a>,
    folds: bool,
    model: RefCell<Option<Model<'a>>>,
}

/// What a prompt has made of the mix.
enum Model<'a> {
    Mixed(Mixed<'a>),
    Folded(Decoder),
}

impl<'a> TaskModel<'a> {
    /// `learner` is off the autodiff device; `base` is the frozen one.
    pub fn new(base: &'a Decoder, learner: &'a Learner, choice: TaskChoice<'a>) -> Self {
        Self {
            base: learner.decoder(base),
            learner,
            choice,
            folds: false,
            model: RefCell::new(None),
        }
    }

    /// Folds the experts into the base at every prompt, where the mix is one matrix (a single expert, or a sum of updates).
    /// That pays where many tokens are written after a prompt.
    pub fn folded(self) -> Self {
        Self {
            folds: true,
            ..self
        }
    }

    fn model(&self, mix: Mix) -> Model<'a> {
        let catalogue = &self.learner.catalogue;
        match mix {
            Mix::Routed(Routing::Single(expert)) if self.folds => {
                Model::Folded(catalogue.merge(self.base, expert))
            }
            Mix::Summed(experts) if self.folds => {
                let (sum, routing) = catalogue.summed(&experts);
                let expert = routing.experts()[0];
                Model::Folded(sum.merge(self.base, expert))
            }
            mix => Model::Mixed(Mixed::new(self.base, catalogue, mix)),
        }
    }
}

impl CausalLm for TaskModel<'_> {
    fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let mut model = self.model.borrow_mut();
        if cache.is_empty() {
            let texts = Texts::new(tokens.clone(), real.clone());
            let mix = self.choice.mix(self.base, self.learner, &texts);
            *model = Some(self.model(mix));
        }
        match model
            .as_ref()
            .expect("a prompt comes before what follows it")
        {
            Model::Mixed(mixed) => mixed.forward_cached(tokens, real, cache),
            Model::Folded(decoder) => decoder.forward_cached(tokens, real, cache),
        }
    }

    fn keep_rows(&self, rows: &[usize]) {
        if let Some(Model::Mixed(mixed)) = self.model.borrow().as_ref() {
            mixed.keep_rows(rows);
        }
    }

    fn reads_on(&self) -> bool {
        match self.model.borrow().as_ref() {
            Some(Model::Mixed(mixed)) => mixed.is_the_same_for_all_texts(),
            _ => true,
        }
    }

    fn decoder(&self) -> &Decoder {
        self.base
    }
}
