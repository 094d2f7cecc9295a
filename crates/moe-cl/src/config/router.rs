//! The `[router]` table: how the task of a text is inferred when nobody says it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the task of a text is inferred when nobody says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouterConfig {
    /// Base layers below the router's features. Absent: an eighth of them, rounded up.
    #[schemars(range(min = 0, max = 65_536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Outputs of the fixed random map; memory grows with their square, eight bytes each.
    #[schemars(range(min = 1, max = 16_384))]
    pub features: usize,
    /// Weight of the ridge penalty, λ. Less than 1e-6 would drown in rounding errors beside features of size one.
    #[schemars(range(min = 1e-6, max = 1e30))]
    pub ridge: f64,
    /// Seed of the fixed random map.
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_u64))]
    pub seed: u64,
    /// Share of known tasks' texts that the threshold for "no known task" lets through, in (0, 1].
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
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
