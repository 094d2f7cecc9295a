//! The expert as a thing: an id for life, where it came from, and its weights in every adapted layer.

use std::fmt;

use burn::module::Module;
use moe_core::parameters::identify;
use serde::{Deserialize, Serialize};

use crate::{LayerExpert, LoraConfig, Projection};

/// Which expert. Never given twice in the life of a [`Catalogue`](crate::Catalogue), also after the expert is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExpertId(pub u64);

impl fmt::Display for ExpertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How an expert came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The task that it was made for.
    pub task: String,
    /// The expert that it was copied from; none where it was drawn.
    pub parent: Option<ExpertId>,
    /// Seed of its draw; none where it was copied or imported.
    pub seed: Option<u64>,
    /// SHA-256 of the `adapter_model.safetensors` that it was imported from; none where it was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<String>,
}

/// What is to be known of an expert besides its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertInfo {
    /// Which it is.
    pub id: ExpertId,
    /// How it came about.
    pub origin: Origin,
    /// Its rank and scaling.
    pub lora: LoraConfig,
    /// The matrices that it has a LoRA on.
    pub targets: Vec<Projection>,
    /// Per adapted layer, lowest first, what it has there; none where that is a LoRA of its rank and scaling on every target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Vec<Vec<Placed>>>,
}

/// One LoRA of an expert: where it is and how large.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// The matrix that it is on.
    pub target: Projection,
    /// Its inner dimension.
    pub rank: usize,
    /// Numerator of its scaling.
    pub alpha: f64,
}

impl Placed {
    /// A LoRA of that size, all else as in `lora`.
    pub fn sized(&self, lora: &LoraConfig) -> LoraConfig {
        LoraConfig {
            rank: self.rank,
            alpha: self.alpha,
            ..lora.clone()
        }
    }
}

impl ExpertInfo {
    /// What it has in the `place`-th adapted layer; nothing where it has no such layer.
    pub fn placed_in(&self, place: usize) -> Vec<Placed> {
        let alike = |&target: &Projection| Placed {
            target,
            rank: self.lora.rank,
            alpha: self.lora.alpha,
        };
        match &self.placed {
            Some(layers) => layers.get(place).cloned().unwrap_or_default(),
            None => self.targets.iter().map(alike).collect(),
        }
    }
}

/// A LoRA on some matrices of every adapted layer: a feed-forward network of its own (MoE-CL, `F_LoRA(z, θ)`).
#[derive(Module, Debug)]
pub struct Expert {
    /// What is to be known of it.
    #[module(skip)]
    pub info: ExpertInfo,
    /// Its weights in each adapted layer, lowest first.
    pub layers: Vec<LayerExpert>,
}

impl Expert {
    /// An expert of the given weights. The ids of its parameters become a function of its own id.
    pub fn new(info: ExpertInfo, layers: Vec<LayerExpert>) -> Self {
        let name = format!("expert.{}", info.id);
        identify(Self { info, layers }, &name)
    }

    /// Which it is.
    pub fn id(&self) -> ExpertId {
        self.info.id
    }
}
