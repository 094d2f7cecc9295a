use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};
use moe_kernels::swiglu;

use super::{FeedForward, linear};

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
        let entries = Entries::new(&routed.experts, self.top_k);
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
    fn route(&self, x: Tensor<3>) -> Routed {
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

/// Which token goes to which expert, sorted by token.
struct Entries {
    token: Vec<u32>,
    expert: Vec<u32>,
}

impl Entries {
    /// `experts [tokens · top_k]`, token after token.
    fn new(experts: &[u32], top_k: usize) -> Self {
        Self {
            token: (0..experts.len()).map(|at| (at / top_k) as u32).collect(),
            expert: experts.to_vec(),
        }
    }
}

/// `x [tokens, d_model]`; `gate`, `up [experts, d_model, d_ff]`; `down [experts, d_ff, d_model]`; `weights [entries]`: each entry's
/// token through its expert's network, weighed and summed by token, `[tokens, d_model]`.
fn sparse_ffn(
    x: Tensor<2>,
    gate: Tensor<3>,
    up: Tensor<3>,
    down: Tensor<3>,
    entries: &Entries,
    weights: Tensor<1>,
) -> Tensor<2> {
    let [experts, d_model, d_ff] = gate.dims();
    let mut sum = x.zeros_like();
    for expert in 0..experts {
        let at = |it: &usize| entries.expert[*it] as usize == expert;
        let places: Vec<usize> = (0..entries.expert.len()).filter(at).collect();
        if places.is_empty() {
            continue;
        }
        let of = |matrix: &Tensor<3>, shape: [usize; 2]| {
            matrix.clone().narrow(0, expert, 1).reshape(shape)
        };
        let tokens = places.iter().map(|&place| i64::from(entries.token[place]));
        let tokens = indices(tokens.collect(), &x);
        let rows = x.clone().select(0, tokens.clone()); // [places, d_model]
        let hidden = swiglu(
            moe_kernels::linear(rows.clone(), of(&gate, [d_model, d_ff])),
            moe_kernels::linear(rows, of(&up, [d_model, d_ff])),
        );
        let output = moe_kernels::linear(hidden, of(&down, [d_ff, d_model]));
        let places = indices(places.iter().map(|&place| place as i64).collect(), &x);
        let weights = weights.clone().select(0, places).unsqueeze_dim::<2>(1);
        sum = sum.select_assign(0, tokens, output * weights, IndexingUpdateOp::Add);
    }
    sum
}

/// Indices next to `x`.
fn indices<const D: usize>(numbers: Vec<i64>, x: &Tensor<D>) -> Tensor<1, Int> {
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), &x.device())
}
