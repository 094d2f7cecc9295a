use burn::module::{Module, Param};
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{DType, Int, Tensor, TensorData};
use moe_kernels::{Entries, sparse_ffn};

use super::{FeedForward, Linear, linear};

/// A mixture of SwiGLU networks, of which each token goes through `top_k`: `Σ_{e ∈ top-k} g_e down_e(silu(gate_e(x)) ⊙ up_e(x))`
/// (Jiang et al. 2024, "Mixtral of Experts", section 2.1). No token is ever dropped.
#[derive(Module, Debug)]
pub struct SparseFeedForward {
    /// `[d_model, experts]`.
    pub router: Linear,
    /// `[experts, d_model, d_ff]`, the side that goes through silu.
    pub gate: Param<Tensor<3>>,
    /// `[experts, d_model, d_ff]`.
    pub up: Param<Tensor<3>>,
    /// `[experts, d_ff, d_model]`.
    pub down: Param<Tensor<3>>,
    /// What every token goes through besides (Qwen2-MoE).
    pub shared: Option<SharedExpert>,
    /// Experts per token.
    pub top_k: usize,
    /// The weights of a token's experts are divided by their sum.
    pub norm_topk_prob: bool,
}

/// A network for all tokens behind a gate of its own: `sigmoid(x w) · ffn(x)` (Qwen2-MoE).
#[derive(Module, Debug)]
pub struct SharedExpert {
    /// The network.
    pub feed_forward: FeedForward,
    /// `[d_model, 1]`.
    pub gate: Linear,
}

/// What a router chose.
#[derive(Clone, Debug)]
pub struct Routed {
    /// Before the softmax, `[tokens, experts]`.
    pub logits: Tensor<2>,
    /// Their softmax, `[tokens, experts]`.
    pub probs: Tensor<2>,
    /// Each token's experts, most probable first, `[tokens · top_k]`.
    pub experts: Vec<u32>,
    /// Weights of the chosen experts, `[tokens, top_k]`.
    pub weights: Tensor<2>,
}

impl SparseFeedForward {
    /// `x [batch, seq, d_model]` → `[batch, seq, d_model]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_routed(x).0
    }

    /// As [`Self::forward`], with what the router chose: its `tokens` are the `batch · seq` positions of `x`, padding too.
    pub fn forward_routed(&self, x: Tensor<3>) -> (Tensor<3>, Routed) {
        let [batch, seq, d_model] = x.dims();
        let rows = x.clone().reshape([batch * seq, d_model]);
        let routed = self.route(x.clone());
        let entries = Entries {
            token: (0..routed.experts.len())
                .map(|at| (at / self.top_k) as u32)
                .collect(),
            expert: routed.experts.clone(),
        };
        let weights = routed.weights.clone().reshape([batch * seq * self.top_k]);
        let [gate, up, down] = [&self.gate, &self.up, &self.down].map(Param::val);
        let output = sparse_ffn(rows, gate, up, down, &entries, weights);
        let output = output.reshape([batch, seq, d_model]);
        let output = match &self.shared {
            Some(shared) => output + shared.forward(x),
            None => output,
        };
        (output, routed)
    }

    /// The choice for `x [batch, seq, d_model]`: softmax over all experts in f32, then the `top_k` most probable; of equal ones the
    /// first.
    pub fn route(&self, x: Tensor<3>) -> Routed {
        let [batch, seq, _d_model] = x.dims();
        let logits = linear(&self.router, x); // [batch, seq, experts]
        let [_, _, experts] = logits.dims();
        let tokens = batch * seq;
        let logits = logits.reshape([tokens, experts]).cast(DType::F32);
        let probs = softmax(logits.clone(), 1);
        let numbers: Vec<f32> = probs.clone().into_data().iter::<f32>().collect();
        let chosen = top_k(&numbers, experts, self.top_k);
        let places = chosen.iter().enumerate();
        let places =
            places.map(|(at, &expert)| (at / self.top_k * experts) as i64 + i64::from(expert));
        let places = indices(places.collect(), &probs);
        let weights = probs.clone().reshape([tokens * experts]).select(0, places);
        let weights = weights.reshape([tokens, self.top_k]);
        let weights = match self.norm_topk_prob {
            true => weights.clone() / weights.sum_dim(1),
            false => weights,
        };
        Routed {
            logits,
            probs,
            experts: chosen,
            weights,
        }
    }
}

impl SharedExpert {
    /// `x [batch, seq, d_model]` → `[batch, seq, d_model]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = sigmoid(linear(&self.gate, x.clone())); // [batch, seq, 1]
        self.feed_forward.forward(x) * gate
    }
}

/// The `k` largest of each row of `probs [rows, experts]`, in falling order, `[rows · k]`.
fn top_k(probs: &[f32], experts: usize, k: usize) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(probs.len() / experts * k);
    let mut order: Vec<u32> = Vec::with_capacity(experts);
    for row in probs.chunks(experts) {
        order.clear();
        order.extend(0..experts as u32);
        order.sort_by(|&one, &other| row[other as usize].total_cmp(&row[one as usize]));
        chosen.extend_from_slice(&order[..k]);
    }
    chosen
}

/// Indices next to `x`.
fn indices<const D: usize>(numbers: Vec<i64>, x: &Tensor<D>) -> Tensor<1, Int> {
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), &x.device())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::super::tests::sparse;
    use super::*;
    use crate::model::Decoder;

    /// The mixture of a random decoder's sparse layer, on the autodiff device.
    fn mixture(seed: u64) -> SparseFeedForward {
        let model = Decoder::random(&sparse(), seed, &Device::flex());
        let mixture = model.layers[1].feed_forward.sparse().unwrap().clone();
        mixture.set_require_grad(true).train()
    }

    fn input() -> Tensor<3> {
        let device = Device::flex();
        let x = Tensor::<3>::random([2, 7, 16], Distribution::Normal(0.0, 1.0), &device);
        Tensor::from_inner(x).require_grad()
    }

    /// Every expert on every token, those that were not chosen at weight zero.
    fn all_experts(mixture: &SparseFeedForward, x: Tensor<3>, routed: &Routed) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let rows = x.clone().reshape([batch * seq, d_model]);
        let [gate, up, down] = [&mixture.gate, &mixture.up, &mixture.down].map(Param::val);
        let [experts, _, _] = gate.dims();
        let mut sum = rows.zeros_like();
        for expert in 0..experts {
            let of = |matrices: &Tensor<3>| matrices.clone().narrow(0, expert, 1).squeeze_dim(0);
            let hidden = burn::tensor::activation::silu(rows.clone().matmul(of(&gate)))
                * rows.clone().matmul(of(&up));
            let chosen = routed
                .experts
                .iter()
                .map(|&it| f32::from(it as usize == expert));
            let chosen = TensorData::new(chosen.collect::<Vec<_>>(), routed.weights.dims());
            let chosen = Tensor::<2>::from_data(chosen, &rows.device());
            let weight = (routed.weights.clone() * chosen).sum_dim(1);
            sum = sum + hidden.matmul(of(&down)) * weight;
        }
        let sum = sum.reshape([batch, seq, d_model]);
        match &mixture.shared {
            Some(shared) => sum + shared.forward(x),
            None => sum,
        }
    }

    #[test]
    fn it_is_the_sum_of_all_experts_of_which_most_weigh_nothing_gradients_included() {
        for (norm, shared) in [(true, true), (false, false)] {
            let mut mixture = mixture(3);
            mixture.norm_topk_prob = norm;
            mixture.shared = mixture.shared.filter(|_| shared);
            let x = input();
            let probe = input().detach();
            // Each way has an input and a graph of its own.
            let way = |mixed: &dyn Fn(Tensor<3>) -> Tensor<3>| {
                let x = Tensor::from_inner(x.clone().inner()).require_grad();
                let output = mixed(x.clone());
                let gradients = (output.clone() * probe.clone()).sum().backward();
                let matrices = [&mixture.gate, &mixture.up, &mixture.down];
                let matrices = matrices.map(|it| it.val().grad(&gradients).unwrap().into_data());
                let router = mixture
                    .router
                    .weight
                    .float()
                    .unwrap()
                    .val()
                    .grad(&gradients)
                    .unwrap();
                let of_x = x.grad(&gradients).unwrap().into_data();
                let rest = [output.into_data(), router.into_data(), of_x];
                matrices.into_iter().chain(rest).collect::<Vec<_>>()
            };
            let got = way(&|x| mixture.forward(x));
            let want = way(&|x| {
                let (_, routed) = mixture.forward_routed(x.clone());
                all_experts(&mixture, x, &routed)
            });
            let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-5);
            for (got, want) in got.into_iter().zip(want) {
                got.assert_approx_eq(&want, tolerance);
            }
        }
    }

    #[test]
    fn the_largest_are_chosen_in_falling_order_and_of_equal_ones_the_first() {
        let probs = [0.1, 0.4, 0.1, 0.4, 0.25, 0.25, 0.25, 0.25];
        assert_eq!(top_k(&probs, 4, 3), [1, 3, 0, 0, 1, 2]);
    }

    #[test]
    fn one_token_and_one_expert_for_all_are_right() {
        let mut mixture = mixture(4);
        mixture.top_k = 1;
        for tokens in [1, 14] {
            // The same token over and over: one expert gets all, the others none.
            let x = input()
                .detach()
                .slice([0..1, 0..1, 0..16])
                .repeat_dim(1, tokens);
            let (output, routed) = mixture.forward_routed(x.clone());
            assert!(
                routed
                    .experts
                    .iter()
                    .all(|expert| *expert == routed.experts[0])
            );
            let want = all_experts(&mixture, x, &routed).into_data();
            let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-5);
            output.into_data().assert_approx_eq(&want, tolerance);
        }
    }

    #[test]
    fn weights_sum_to_one_where_they_are_divided_by_their_sum() {
        let mixture = mixture(5);
        let (_, routed) = mixture.forward_routed(input());
        let sums = routed.weights.sum_dim(1).into_data();
        sums.assert_approx_eq::<f32>(&TensorData::from([[1f32]; 14]), Tolerance::default());
    }
}
