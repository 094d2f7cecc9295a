//! The `[adapters]` table: the shape of every LoRA expert.

use moe_lora::{AdapterConfig, LayerRange, LoraConfig, LoraInit, Projection};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The shape of every LoRA expert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptersConfig {
    /// Inner dimension of every LoRA pair.
    #[schemars(range(min = 1, max = 65_536))]
    pub rank: usize,
    /// Scale of the update: alpha/rank, with rsLoRA alpha/√rank.
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// Scale by alpha/√rank (Kalajdzievski 2023) instead of alpha/rank.
    pub rslora: bool,
    /// Share of the inputs of every LoRA pair that are set to zero in training, in [0, 1).
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// First values of A, as PEFT's: B is zero, so that a new expert leaves the model unchanged.
    #[schemars(schema_with = "init_schema")]
    pub init: LoraInit,
    /// The maps that are adapted: gate, up and down of the feed-forward, q, k, v and o of the attention.
    #[schemars(schema_with = "targets_schema")]
    pub targets: Vec<Projection>,
    /// The decoder layers that are adapted: "all" or "last:N" (all, where there are no more than N). Layers below the
    /// first need no backward pass, and run once per text.
    #[schemars(schema_with = "layers_schema")]
    pub layers: LayerRange,
}

fn init_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["kaiming", "gaussian"]})
}

fn targets_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "string", "enum": Projection::NAMES}})
}

fn layers_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^(all|last:[1-9][0-9]*)$"})
}

impl Default for AdaptersConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            rslora: false,
            dropout: 0.0,
            init: LoraInit::Kaiming,
            targets: vec![Projection::Gate, Projection::Up, Projection::Down],
            layers: LayerRange::Last(8),
        }
    }
}

impl AdaptersConfig {
    /// Size and start of one LoRA pair.
    pub fn lora(&self) -> LoraConfig {
        LoraConfig {
            rank: self.rank,
            alpha: self.alpha,
            rslora: self.rslora,
            dropout: self.dropout,
            init: self.init,
        }
    }
}

impl From<&AdaptersConfig> for AdapterConfig {
    fn from(config: &AdaptersConfig) -> Self {
        Self {
            lora: config.lora(),
            targets: config.targets.clone(),
            layers: config.layers,
        }
    }
}
