use serde::{Deserialize, Serialize};

use super::{Capacity, GShardConfig};

/// Which layers of a model are sparse in GLaM's layout (arXiv 2112.06905, §4): every other one, each with [`Self::router`]'s
/// top-2 router. The paper has 64 experts a layer, each a gated feed-forward network as the dense layers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Glam {
    /// One layer of so many is sparse, the last of each: 2 is every other.
    pub every: usize,
}

impl Default for Glam {
    /// As in the paper.
    fn default() -> Self {
        Self { every: 2 }
    }
}

impl Glam {
    /// Whether layer `layer` (0 is the lowest) is sparse.
    pub fn is_sparse(self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.every.max(1))
    }

    /// The sparse ones of `num_layers`.
    pub fn sparse_layers(self, num_layers: usize) -> Vec<usize> {
        (0..num_layers)
            .filter(|&layer| self.is_sparse(layer))
            .collect()
    }

    /// GShard's gating, which GLaM keeps: the best two of the experts, balance loss 1e-2.
    pub fn router() -> GShardConfig {
        GShardConfig {
            capacity: Capacity::factor(1.25),
            ..GShardConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_layer_is_sparse() {
        assert_eq!(Glam::default().sparse_layers(6), [1, 3, 5]);
        assert_eq!(Glam { every: 1 }.sparse_layers(3), [0, 1, 2]);
        assert_eq!(Glam { every: 4 }.sparse_layers(8), [3, 7]);
    }
}
