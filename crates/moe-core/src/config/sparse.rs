//! Which layers of a decoder are sparse, and what their experts are.

use std::path::Path;

use super::{ModelConfig, Parameter};
use crate::error::{Error, Result};

/// More experts than any layer has; a larger number is a damaged file, refused before it costs memory.
const MAX_EXPERTS: usize = 4096;

/// The sparse layers of a decoder: each token goes through `top_k` of `num_experts` networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseConfig {
    /// How the experts' tensors are called in files.
    pub names: ExpertNames,
    /// Experts of a layer (`num_local_experts`, `num_experts`).
    pub num_experts: usize,
    /// Experts that a token goes through (`num_experts_per_tok`).
    pub top_k: usize,
    /// Width inside one expert (`moe_intermediate_size`, or `intermediate_size` where all layers are sparse).
    pub d_ff: usize,
    /// The weights of a token's experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Width inside the network that every token goes through besides (`shared_expert_intermediate_size`).
    pub shared_d_ff: Option<usize>,
    /// Layers `step − 1`, `2 · step − 1`, … are sparse (`decoder_sparse_step`).
    pub step: usize,
    /// But for these, which are dense (`mlp_only_layers`).
    pub dense_layers: Vec<usize>,
}

/// The names of the experts' tensors in Hugging Face files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertNames {
    /// `block_sparse_moe.experts.E.w1`, `w3`, `w2`.
    Mixtral,
    /// `mlp.experts.E.gate_proj`, `up_proj`, `down_proj` (OLMoE too).
    Qwen,
}

impl ExpertNames {
    /// What stands before `gate` and `experts` in a layer.
    pub(crate) fn block(self) -> &'static str {
        match self {
            Self::Mixtral => "block_sparse_moe",
            Self::Qwen => "mlp",
        }
    }

    /// The gate, up and down matrices of an expert.
    pub(crate) fn matrices(self) -> [&'static str; 3] {
        match self {
            Self::Mixtral => ["w1", "w3", "w2"],
            Self::Qwen => ["gate_proj", "up_proj", "down_proj"],
        }
    }
}

impl SparseConfig {
    /// Whether the layer of that index has experts.
    pub fn is_sparse(&self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.step) && !self.dense_layers.contains(&layer)
    }

    /// The tensors of a sparse layer's mixture, below `model.layers.N.`.
    pub(super) fn parameters(&self, d_model: usize) -> Vec<(String, Vec<usize>, Keys)> {
        let (block, experts) = (self.names.block(), self.num_experts);
        let mut all = vec![(
            format!("{block}.gate.weight"),
            vec![experts, d_model],
            EXPERTS,
        )];
        let [gate, up, down] = self.names.matrices();
        for expert in 0..experts {
            for (matrix, shape) in [
                (gate, [self.d_ff, d_model]),
                (up, [self.d_ff, d_model]),
                (down, [d_model, self.d_ff]),
            ] {
                let name = format!("{block}.experts.{expert}.{matrix}.weight");
                all.push((name, shape.to_vec(), EXPERT));
            }
        }
        let Some(shared) = self.shared_d_ff else {
            return all;
        };
        for (matrix, shape) in [
            (gate, [shared, d_model]),
            (up, [shared, d_model]),
            (down, [d_model, shared]),
        ] {
            let name = format!("{block}.shared_expert.{matrix}.weight");
            all.push((name, shape.to_vec(), SHARED));
        }
        let name = format!("{block}.shared_expert_gate.weight");
        all.push((name, vec![1, d_model], SHARED));
        all
    }

    /// The laws between the numbers.
    pub(super) fn check(&self, origin: &Path) -> Result<()> {
        let refuse = |key: &str, message: String| Err(Error::config(origin, key, message));
        let experts = match self.names {
            ExpertNames::Mixtral => "num_local_experts",
            ExpertNames::Qwen => "num_experts",
        };
        for (key, value) in [
            (experts, self.num_experts),
            ("num_experts_per_tok", self.top_k),
            ("moe_intermediate_size", self.d_ff),
            (
                "shared_expert_intermediate_size",
                self.shared_d_ff.unwrap_or(1),
            ),
            ("decoder_sparse_step", self.step),
        ] {
            if value == 0 {
                return refuse(key, "must be at least 1, found 0".into());
            }
        }
        if self.num_experts > MAX_EXPERTS {
            let message = format!("{} experts are more than {MAX_EXPERTS}", self.num_experts);
            return refuse(experts, message);
        }
        if self.top_k > self.num_experts {
            let message = format!(
                "{} is more than the {} experts",
                self.top_k, self.num_experts
            );
            return refuse("num_experts_per_tok", message);
        }
        Ok(())
    }
}

impl ModelConfig {
    /// What the mixture of a layer is; none where the layer is dense.
    pub fn sparse_in(&self, layer: usize) -> Option<&SparseConfig> {
        self.sparse
            .as_ref()
            .filter(|sparse| sparse.is_sparse(layer))
    }

    /// The tensors of a layer's feed-forward block.
    pub(super) fn feed_forward_parameters(&self, layer: usize) -> Vec<Parameter> {
        let (d_model, d_ff) = (self.d_model, self.d_ff);
        let all = match self.sparse_in(layer) {
            Some(sparse) => sparse.parameters(d_model),
            None => vec![
                (
                    "mlp.gate_proj.weight".into(),
                    vec![d_ff, d_model],
                    FEED_FORWARD,
                ),
                (
                    "mlp.up_proj.weight".into(),
                    vec![d_ff, d_model],
                    FEED_FORWARD,
                ),
                (
                    "mlp.down_proj.weight".into(),
                    vec![d_model, d_ff],
                    FEED_FORWARD,
                ),
            ],
        };
        let named = |(name, shape, keys)| Parameter {
            name: format!("model.layers.{layer}.{name}"),
            shape,
            keys,
        };
        all.into_iter().map(named).collect()
    }
}

/// The `config.json` keys that decide a shape.
type Keys = &'static [&'static str];

const FEED_FORWARD: Keys = &["intermediate_size", "hidden_size"];
const EXPERTS: Keys = &["num_local_experts or num_experts", "hidden_size"];
const EXPERT: Keys = &["moe_intermediate_size or intermediate_size", "hidden_size"];
const SHARED: Keys = &["shared_expert_intermediate_size", "hidden_size"];

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::*;

    fn sparse() -> SparseConfig {
        SparseConfig {
            names: ExpertNames::Qwen,
            num_experts: 3,
            top_k: 2,
            d_ff: 5,
            norm_topk_prob: false,
            shared_d_ff: Some(6),
            step: 2,
            dense_layers: vec![3],
        }
    }

    #[test]
    fn sparse_layers_are_every_step_th_but_those_named() {
        let of = |config: &SparseConfig| (0..6).filter(|&layer| config.is_sparse(layer)).collect();
        let found: Vec<usize> = of(&sparse());
        assert_eq!(found, [1, 5]);
        let every = SparseConfig {
            step: 1,
            ..sparse()
        };
        let found: Vec<usize> = of(&every);
        assert_eq!(found, [0, 1, 2, 4, 5]);
    }

    #[test]
    fn the_parameters_of_all_experts_count() {
        let dense = tiny();
        let mut config = tiny();
        config.sparse = Some(sparse());
        // Layer 1 has, for a network of 72: a router of 3 rows, experts of 3 · 4 · 5, one of 3 · 4 · 6 and its gate.
        let more = 3 * 4 + 3 * 60 + 72 + 4 - 72;
        assert_eq!(config.num_parameters(), dense.num_parameters() + more);
        let names = config.parameter_shapes();
        let named = |name: &str| names.iter().find(|(known, _)| known == name);
        let down = named("model.layers.1.mlp.experts.2.down_proj.weight").unwrap();
        assert_eq!(down.1, [4, 5]);
        assert!(named("model.layers.0.mlp.down_proj.weight").is_some());
        assert!(named("model.layers.1.mlp.down_proj.weight").is_none());
    }

    #[test]
    fn numbers_that_cannot_be_are_refused_by_their_key() {
        let refused = |config: SparseConfig, key: &str| {
            let message = config.check(Path::new("c.json")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        };
        refused(
            SparseConfig {
                top_k: 4,
                ..sparse()
            },
            "num_experts_per_tok",
        );
        refused(
            SparseConfig {
                step: 0,
                ..sparse()
            },
            "decoder_sparse_step",
        );
        let none = SparseConfig {
            num_experts: 0,
            ..sparse()
        };
        refused(none, "num_experts");
        let absurd = SparseConfig {
            num_experts: 1 << 40,
            ..sparse()
        };
        refused(absurd, "num_experts");
    }
}
