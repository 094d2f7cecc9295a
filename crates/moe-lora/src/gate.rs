use std::fmt;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use moe_core::parameters::identify;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::router::{Router, RouterConfig};

/// Which gate. Never given twice in the life of a [`Catalogue`](crate::Catalogue).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GateId(pub u64);

impl fmt::Display for GateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is to be known of a gate besides its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateInfo {
    /// Which it is.
    pub id: GateId,
    /// The task that it was made for.
    pub task: String,
    /// How many experts it weighs.
    pub columns: usize,
    /// The router that picks some of them for each token; none where all of them answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<GateRouter>,
}

/// A router in the place of a gate: what it is made of anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateRouter {
    /// Seed of its draw.
    pub seed: u64,
    /// Its kind and its settings.
    pub settings: RouterConfig,
}

/// A gate of the whole model: in every adapted layer a [`TokenGate`], or a [`Router`].
#[derive(Module, Debug)]
pub struct Gate {
    /// What is to be known of it.
    #[module(skip)]
    pub info: GateInfo,
    /// One per adapted layer, lowest first; none where there are routers.
    pub layers: Vec<TokenGate>,
    /// One per adapted layer, lowest first, where the gate is a router ([`GateInfo::router`]).
    pub routers: Vec<Router>,
}

impl Gate {
    /// A gate of the given weights. The ids of its parameters become a function of its own id.
    pub fn new(info: GateInfo, layers: Vec<TokenGate>) -> Self {
        Self::of(info, layers, Vec::new())
    }

    /// One of routers. The ids of its parameters become a function of its own id.
    pub fn of_routers(info: GateInfo, routers: Vec<Router>) -> Self {
        Self::of(info, Vec::new(), routers)
    }

    fn of(info: GateInfo, layers: Vec<TokenGate>, routers: Vec<Router>) -> Self {
        let name = format!("gate.{}", info.id);
        let gate = Self {
            info,
            layers,
            routers,
        };
        identify(gate, &name)
    }

    /// Which it is.
    pub fn id(&self) -> GateId {
        self.info.id
    }
}

/// Weighs the active experts for each token: `softmax(x G)` (MoE-CL, `(β_s, β_t) = softmax(G z)`),
/// no bias.
#[derive(Module, Debug)]
pub struct TokenGate {
    /// `[d_model, active]`, a column per active expert in the order of
    /// [`Routing::Gated`](crate::Routing::Gated).
    pub weight: Param<Tensor<2>>,
}

/// Start of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateInit {
    /// All experts weigh the same for every token at first.
    Zeros,
    /// Uniform in `±1/√d_model`, as a linear layer of the authors' code starts.
    Random {
        /// Of the draw.
        seed: u64,
    },
}

impl GateInit {
    /// Layers draw different numbers from one seed.
    pub(crate) fn in_layer(self, layer: usize) -> Self {
        match self {
            Self::Random { seed } => Self::Random {
                seed: seed.wrapping_add((layer as u64) << 32),
            },
            Self::Zeros => Self::Zeros,
        }
    }
}

impl TokenGate {
    /// A gate over `active` experts for tokens of `d_model` numbers.
    pub fn new(d_model: usize, active: usize, init: GateInit, device: &Device) -> Self {
        let shape = [d_model, active];
        Self::from_weight(match init {
            GateInit::Zeros => Tensor::zeros(shape, device),
            GateInit::Random { seed } => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let bound = 1.0 / (d_model as f32).sqrt();
                let values: Vec<f32> = (0..d_model * active)
                    .map(|_| rng.random_range(-bound..bound))
                    .collect();
                Tensor::from_data(TensorData::new(values, shape), device)
            }
        })
    }

    /// From `weight [d_model, active]`, trained from there on.
    pub fn from_weight(weight: Tensor<2>) -> Self {
        Self {
            weight: Param::from_tensor(weight.detach()),
        }
    }

    /// `x [n, d_model]` → weights `[n, active]`, rows sum to one.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        moe_kernels::token_gate(x, self.weight.val())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn router_rows_sum_to_one() {
        let device = Device::flex();
        let gate = TokenGate::new(6, 3, GateInit::Random { seed: 4 }, &device);
        let x = Tensor::random([50, 6], Distribution::Normal(0.0, 40.0), &device);
        let weights = gate.forward(x);
        assert!(
            weights
                .clone()
                .greater_equal_scalar(0.0)
                .all()
                .into_scalar::<bool>()
        );
        for sum in weights.sum_dim(1).into_data().iter::<f32>() {
            assert!((sum - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn zero_gate_weighs_all_experts_the_same() {
        let device = Device::flex();
        let gate = TokenGate::new(6, 2, GateInit::Zeros, &device);
        let x = Tensor::random([5, 6], Distribution::Default, &device);
        let weights: Vec<f32> = gate.forward(x).into_data().iter::<f32>().collect();
        assert_eq!(weights, vec![0.5; 10]);
    }
}
