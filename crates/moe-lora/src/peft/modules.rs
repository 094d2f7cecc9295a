//! The modules of a base that a LoRA can be on, as PEFT names them.

use moe_core::config::ModelConfig;

use crate::Projection;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// The decoder layer.
    pub(super) layer: usize,
    /// The matrix.
    pub(super) target: Projection,
    /// `model.layers.0.self_attn.q_proj`.
    pub(super) name: String,
}

impl Module {
    pub(super) fn new(layer: usize, target: Projection) -> Self {
        let block = if is_inside(target) {
            "mlp"
        } else {
            "self_attn"
        };
        let name = format!("model.layers.{layer}.{block}.{}", last_name(target));
        Self {
            layer,
            target,
            name,
        }
    }

    /// All of `base`, layer by layer. A sparse block has many matrices of each kind, and no LoRA is on them.
    pub(super) fn all(base: &ModelConfig) -> Vec<Self> {
        let of_layer = |layer: usize| {
            let sparse = base.sparse_in(layer).is_some();
            let there = move |target: &Projection| !(is_inside(*target) && sparse);
            let targets = Projection::ALL.into_iter().filter(there);
            targets.map(move |target| Self::new(layer, target))
        };
        (0..base.num_layers).flat_map(of_layer).collect()
    }

    /// Name of its `A` or `B` in a file that PEFT writes.
    pub(super) fn tensor(&self, of: &str) -> String {
        format!("base_model.model.{}.lora_{of}.weight", self.name)
    }

    /// As [`Self::tensor`], with the adapter's name left in, as it is in a state dictionary in memory.
    pub(super) fn tensor_with_adapter(&self, of: &str) -> String {
        format!("base_model.model.{}.lora_{of}.default.weight", self.name)
    }
}

/// Whether it is a matrix of the feed-forward block.
pub(super) fn is_inside(target: Projection) -> bool {
    matches!(target, Projection::Gate | Projection::Up | Projection::Down)
}

/// `q_proj`.
pub(super) fn last_name(target: Projection) -> String {
    format!("{}_proj", target.name())
}
