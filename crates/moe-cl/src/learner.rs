//! Everything that is trained: LoRA experts with their gates, classification heads, task discriminators.

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Device, Tensor, TensorData},
};
use moe_core::model::Decoder;
use moe_gan::Discriminator;
use moe_lora::Adapters;
use rand::{Rng, RngExt};

use crate::{data::Collate, task_vectors::TaskVectors};

/// The trainable part of a continual learner; a frozen base stays outside.
#[derive(Module, Debug)]
pub struct Learner {
    /// Experts and gates of every adapted layer.
    pub adapters: Adapters,
    /// One head `[d_model, classes]` per task of the stream; empty when labels are generated as text.
    pub heads: Vec<Linear>,
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

/// A classification head without bias, uniform in ±1/√`d_model` (PyTorch's default for a linear layer,
/// which the MoE-CL authors use).
pub fn head(d_model: usize, classes: usize, rng: &mut impl Rng, device: &Device) -> Linear {
    let bound = 1.0 / (d_model as f32).sqrt();
    let values: Vec<f32> = (0..d_model * classes)
        .map(|_| rng.random_range(-bound..bound))
        .collect();
    let weight = Tensor::<2>::from_data(TensorData::new(values, [d_model, classes]), device);
    Linear {
        weight: Param::from_tensor(weight),
        bias: None,
    }
}
