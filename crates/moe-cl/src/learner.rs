//! Everything that is trained: LoRA experts with their gates, classification heads, task discriminators.

use burn::module::Module;
use moe_core::model::Decoder;
use moe_gan::Discriminator;
use moe_lora::Adapters;

use crate::{data::Collate, head::Head, task_vectors::TaskVectors};

/// The trainable part of a continual learner; a frozen base stays outside.
#[derive(Module, Debug)]
pub struct Learner {
    /// Experts and gates of every adapted layer.
    pub adapters: Adapters,
    /// One head per task of the stream; empty when labels are generated as text.
    pub heads: Vec<Head>,
    /// One discriminator per adapted layer; empty for methods without an adversary.
    pub discriminators: Vec<Discriminator>,
    /// How like each task a text is; none for methods that do not ask.
    pub task_vectors: Option<TaskVectors>,
    /// A base of its own that is trained; none where the frozen one serves.
    pub decoder: Option<Decoder>,
}

impl Learner {
    /// Adapters alone.
    pub fn new(adapters: Adapters) -> Self {
        Self {
            adapters,
            heads: Vec::new(),
            discriminators: Vec::new(),
            task_vectors: None,
            decoder: None,
        }
    }

    /// How batches are made for it: what is kept of the frozen base says nothing of a decoder of its own.
    pub fn collate<'a>(&self, base: Collate<'a>) -> Collate<'a> {
        match self.decoder {
            Some(_) => Collate::padding(base.pad),
            None => base,
        }
    }

    /// The decoder below the adapters: the learner's own where it has one, else the frozen `base`.
    pub fn trunk<'a>(&'a self, base: &'a Decoder) -> &'a Decoder {
        self.decoder.as_ref().unwrap_or(base)
    }
}
