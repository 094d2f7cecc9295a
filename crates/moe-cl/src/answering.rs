//! A learner as a language model that answers for a task, whatever its method.

use std::cell::RefCell;

use burn::tensor::{Bool, Device, Int, Tensor};
use moe_core::{
    generate::CausalLm,
    model::{Decoder, KvCache},
};
use moe_lora::Mixed;

use crate::{learner::Learner, methods::Method};

/// The experts that a method names for a task, mixed anew for every prompt: a mix may depend on the text, and then stays what
/// the prompt made it while the answer is written.
pub struct Answering<'a> {
    base: &'a Decoder,
    learner: &'a Learner,
    method: &'a dyn Method,
    task: usize,
    mixed: RefCell<Option<Mixed<'a>>>,
}

impl<'a> Answering<'a> {
    /// `learner` is off the autodiff device; `base` is the frozen one.
    pub fn new(
        base: &'a Decoder,
        learner: &'a Learner,
        method: &'a dyn Method,
        task: usize,
    ) -> Self {
        Self {
            base: learner.trunk(base),
            learner,
            method,
            task,
            mixed: RefCell::new(None),
        }
    }
}

impl CausalLm for Answering<'_> {
    fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let mut mixed = self.mixed.borrow_mut();
        if cache.is_empty() {
            let mix = self
                .method
                .mix(self.base, self.learner, self.task, &tokens, &real);
            *mixed = Some(Mixed::new(self.base, &self.learner.adapters, mix));
        }
        mixed
            .as_ref()
            .expect("a prompt comes before what follows it")
            .forward_cached(tokens, real, cache)
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.base.logits(hidden)
    }

    fn num_layers(&self) -> usize {
        self.base.layers.len()
    }

    fn device(&self) -> Device {
        self.base.device()
    }
}
