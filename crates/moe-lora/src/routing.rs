use serde::{Deserialize, Serialize};

use crate::{ExpertId, GateId};

/// Which experts answer, and how their outputs are mixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// The base alone.
    Base,
    /// One expert alone.
    Single(ExpertId),
    /// Weighted for each token by a gate with a column per expert, in this order.
    Gated {
        /// The active experts.
        experts: Vec<ExpertId>,
        /// The gate that weighs them.
        gate: GateId,
    },
    /// The mean of these experts' outputs.
    Uniform {
        /// The active experts.
        experts: Vec<ExpertId>,
    },
}

impl Routing {
    /// The active experts, in order.
    pub fn experts(&self) -> &[ExpertId] {
        match self {
            Self::Base => &[],
            Self::Single(expert) => std::slice::from_ref(expert),
            Self::Gated { experts, .. } | Self::Uniform { experts } => experts,
        }
    }

    /// The gate that weighs them, where there is one.
    pub fn gate(&self) -> Option<GateId> {
        match self {
            Self::Gated { gate, .. } => Some(*gate),
            Self::Base | Self::Single(_) | Self::Uniform { .. } => None,
        }
    }
}
