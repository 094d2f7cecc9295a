//! The `[balance]` table: how the routers of a sparse base are kept from sending all tokens to few experts.

use moe_lora::router::LossKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the routers of a sparse base are kept from sending all tokens to few experts, and how often that is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceConfig {
    /// The loss that spreads the tokens, added to the task's where routers train.
    pub loss: BalanceLoss,
    /// What it is multiplied by.
    #[schemars(range(min = 0, max = 1e6))]
    pub weight: f64,
    /// What the loss is multiplied by that keeps the routers' logits small (ST-MoE, eq. 5). 0: none.
    #[schemars(range(min = 0, max = 1e6))]
    pub z_loss: f64,
    /// Optimiser steps between two looks at the load of a sparse base's experts.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub every: usize,
}

/// A loss that spreads tokens over experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceLoss {
    /// None.
    #[default]
    None,
    /// Experts that are chosen often are to have little probability: `E Σ f_e P_e` (Switch Transformers, eq. 4). 1 where all is even.
    Balance,
    /// Experts are to have equal sums of probabilities: their squared coefficient of variation (after Shazeer et al. 2017, eq. 7). 0 where all is even.
    Importance,
}

impl BalanceLoss {
    /// As routers call it.
    pub(crate) fn kind(self) -> Option<LossKind> {
        match self {
            Self::None => None,
            Self::Balance => Some(LossKind::Balance),
            Self::Importance => Some(LossKind::Importance),
        }
    }
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            loss: BalanceLoss::None,
            weight: 0.01,
            z_loss: 0.0,
            every: 50,
        }
    }
}

impl BalanceConfig {
    /// The first key that asks for a loss of routers; none where none does.
    pub fn asks(&self) -> Option<&'static str> {
        match (self.loss, self.z_loss) {
            (BalanceLoss::None, 0.0) => None,
            (BalanceLoss::None, _) => Some("balance.z_loss"),
            _ => Some("balance.loss"),
        }
    }
}
