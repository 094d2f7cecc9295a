//! The `[adapters]` table: the shape of every LoRA expert.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A linear map of a decoder layer that an expert adapts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Gate projection of the SwiGLU feed-forward.
    Gate,
    /// Up projection of the feed-forward.
    Up,
    /// Down projection of the feed-forward.
    Down,
    /// Query projection of the attention.
    Query,
    /// Key projection of the attention.
    Key,
    /// Value projection of the attention.
    Value,
    /// Output projection of the attention.
    Output,
}

/// First values of a LoRA pair. `B` always starts at zero, so that a new expert leaves the model unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// `A` uniform as PyTorch's `kaiming_uniform_(a=√5)`, PEFT's default.
    #[default]
    Kaiming,
    /// `A` normal with standard deviation 1/rank, PEFT's `"gaussian"`.
    Gaussian,
}

/// The decoder layers that are adapted, written `"all"` or `"last:8"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Layers {
    /// Every layer.
    #[default]
    All,
    /// The given number of layers next to the output; layers below need no backward pass.
    Last(usize),
}

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let last = text.strip_prefix("last:").map(str::parse::<usize>);
        match (text, last) {
            ("all", _) => Ok(Self::All),
            (_, Some(Ok(count))) if count > 0 => Ok(Self::Last(count)),
            _ => Err(format!(
                "layers are \"all\" or \"last:N\" with N ≥ 1, got \"{text}\""
            )),
        }
    }
}

impl TryFrom<String> for Layers {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Last(count) => write!(f, "last:{count}"),
        }
    }
}

impl From<Layers> for String {
    fn from(layers: Layers) -> Self {
        layers.to_string()
    }
}

impl JsonSchema for Layers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Layers".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "The decoder layers that are adapted: \"all\" or \"last:N\".",
            "type": "string",
            "pattern": "^(all|last:[1-9][0-9]*)$"
        })
    }
}

/// The shape of every LoRA expert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptersConfig {
    /// Inner dimension of every LoRA pair.
    pub rank: usize,
    /// Scale of the update: alpha/rank, with rsLoRA alpha/√rank.
    pub alpha: f64,
    /// Scale by alpha/√rank (Kalajdzievski 2023) instead of alpha/rank.
    pub rslora: bool,
    /// Share of the inputs of every LoRA pair that are set to zero in training, in [0, 1).
    pub dropout: f64,
    /// First values of every LoRA pair.
    pub init: Init,
    /// The maps that are adapted.
    pub targets: Vec<Target>,
    /// The decoder layers that are adapted: "all" or "last:N".
    pub layers: Layers,
}

impl Default for AdaptersConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            rslora: false,
            dropout: 0.0,
            init: Init::Kaiming,
            targets: vec![Target::Gate, Target::Up, Target::Down],
            layers: Layers::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_read_back_as_they_are_written() {
        for layers in [Layers::All, Layers::Last(8)] {
            assert_eq!(layers.to_string().parse(), Ok(layers));
        }
        for wrong in ["", "last", "last:0", "last:-1", "first:2", "ALL"] {
            assert!(wrong.parse::<Layers>().is_err(), "{wrong}");
        }
    }
}
