//! The `[router]` table: how the task of a text is inferred when nobody says it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the task of a text is inferred when nobody says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouterConfig {
    /// Base layers below the router's features. Absent: an eighth of them, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Outputs of the fixed random map; memory grows with their square, eight bytes each.
    pub features: usize,
    /// Weight of the ridge penalty, λ.
    pub ridge: f64,
    /// Seed of the fixed random map.
    pub seed: u64,
    /// Share of known tasks' texts that the threshold for "no known task" lets through, in (0, 1].
    pub accept: f64,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            layer: None,
            features: 1024,
            ridge: 10.0,
            seed: 0,
            accept: 0.95,
        }
    }
}
