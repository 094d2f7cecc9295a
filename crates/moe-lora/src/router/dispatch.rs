use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::RouterLoss;

/// One token at one expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Which token.
    pub token: u32,
    /// Which expert.
    pub expert: u32,
    /// Its place among the tokens of its group at this expert, from 0; below the capacity where there is one.
    pub slot: u32,
}

/// What a router returns: which experts each token goes to, with which weights, and the losses that train the router.
///
/// The layer's output is `y_t = Σ_i weights[i] · expert_{e_i}(x_t)` over the entries of token `t` (Shazeer et al. 2017, eq. 1).
/// A token without an entry was dropped, or is padding, and goes by the residual alone. Entries are chosen and not differentiable;
/// weights and losses are tensors that autodiff follows to the router's parameters and input.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// How many tokens were routed, padding included.
    pub tokens: usize,
    /// How many experts there are.
    pub experts: usize,
    /// By token, then as the token chose.
    pub entries: Vec<Entry>,
    /// `[entries]`.
    pub weights: Tensor<1>,
    /// `[tokens, experts]`, what the router makes of every expert: probabilities, or the sigmoids of [`BiasBalanced`](super::BiasBalanced).
    /// Nothing where it does not look at the tokens' states.
    pub scores: Option<Tensor<2>>,
    /// `[experts]`, how many tokens chose each expert before any was dropped.
    pub wanted: Vec<u32>,
    /// The router's own losses.
    pub losses: Vec<RouterLoss>,
}

impl Dispatch {
    /// `[experts]`, how many tokens each expert is given.
    pub fn load(&self) -> Vec<u32> {
        let mut load = vec![0; self.experts];
        for entry in &self.entries {
            load[entry.expert as usize] += 1;
        }
        load
    }

    /// Share of the choices that found no place, in `[0, 1]`.
    pub fn dropped_share(&self) -> f64 {
        let wanted: u64 = self.wanted.iter().copied().map(u64::from).sum();
        match wanted {
            0 => 0.0,
            wanted => 1.0 - self.entries.len() as f64 / wanted as f64,
        }
    }

    /// The losses times their coefficients, summed, `[1]`: what is added to the loss of the task. Nothing where there are none.
    pub fn auxiliary(&self) -> Option<Tensor<1>> {
        self.losses
            .iter()
            .map(|loss| loss.value.clone() * loss.coefficient)
            .reduce(|sum, loss| sum + loss)
    }

    /// `[tokens, experts]`, the weights with zeros where a token does not go (Shazeer's `G(x)`).
    pub fn gates(&self) -> Tensor<2> {
        let device = self.weights.device();
        let places: Vec<i64> = self
            .entries
            .iter()
            .map(|entry| i64::from(entry.token) * self.experts as i64 + i64::from(entry.expert))
            .collect();
        let count = places.len();
        let zeros = Tensor::<1>::zeros([self.tokens * self.experts], &device);
        let gates = match count {
            0 => zeros,
            _ => {
                let places = Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &device);
                zeros.select_assign(0, places, self.weights.clone(), IndexingUpdateOp::Add)
            }
        };
        gates.reshape([self.tokens, self.experts])
    }

    /// Entries by expert: `order` holds indices of [`Self::entries`], those of expert `e` in `order[starts[e]..starts[e + 1]]`
    /// by token. What a grouped product over the experts reads.
    pub fn by_expert(&self) -> ByExpert {
        let mut starts = vec![0; self.experts + 1];
        for (expert, load) in self.load().into_iter().enumerate() {
            starts[expert + 1] = starts[expert] + load as usize;
        }
        let mut next = starts.clone();
        let mut order = vec![0; self.entries.len()];
        for (index, entry) in self.entries.iter().enumerate() {
            let place = &mut next[entry.expert as usize];
            order[*place] = index as u32;
            *place += 1;
        }
        ByExpert { starts, order }
    }
}

/// The entries of a [`Dispatch`] by expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByExpert {
    /// `[experts + 1]`, where each expert's begin in `order`.
    pub starts: Vec<usize>,
    /// `[entries]`, indices of entries.
    pub order: Vec<u32>,
}
