//! Experts inside a sparse block: the base's router chooses among its own experts, and with each of them the LoRAs on it.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use moe_core::model::{Routed, SparseFeedForward, linear};
use moe_kernels::{Entries, grouped_linear, sparse_ffn, swiglu};

use crate::routed::{LowRank, low_rank};
use crate::router::Dispatch;
use crate::{BankOutput, ExpertBank, ExpertId, Lora, LoraDropout, Observe, Projection};

/// A row through one of the base's experts, with the LoRAs of one active expert on it.
struct Way {
    token: u32,
    base: u32,
    /// The active expert's place.
    column: usize,
}

impl ExpertBank<'_> {
    /// Whether an active expert has LoRAs inside a sparse block.
    pub(crate) fn is_inside(&self) -> bool {
        self.experts.iter().any(|(_, it)| !it.inside.is_empty())
    }

    /// The mixture of all active experts over a sparse block, `x [batch, seq, d_model]`: `Σ_e g_e F_e(x)`, where `F_e` is the block with
    /// the LoRAs of expert e inside.
    pub(crate) fn over_sparse(
        &self,
        sparse: &SparseFeedForward,
        x: Tensor<3>,
        observe: Option<(&Observe, Tensor<2>)>,
        dropout: Option<&LoraDropout>,
    ) -> BankOutput {
        let dims @ [batch, seq, d_model] = x.dims();
        let (tokens, active, top_k) = (batch * seq, self.experts.len(), sparse.top_k);
        let rows = x.clone().reshape([tokens, d_model]);
        let routed = sparse.route(x.clone());
        let gate = self.weights(rows.clone()); // [tokens, active]
        let weights = routed.weights.clone().reshape([tokens, top_k, 1])
            * gate.clone().reshape([tokens, 1, active]);
        let choices = routed.experts.iter().enumerate();
        let ways = choices.flat_map(|(choice, &base)| {
            let token = (choice / top_k) as u32;
            (0..active).map(move |column| Way {
                token,
                base,
                column,
            })
        });
        let weights = weights.reshape([tokens * top_k * active]);
        let own = self.networks(sparse, &rows, &ways.collect::<Vec<_>>(), weights, dropout);
        let output = match &sparse.shared {
            Some(shared) => {
                let all = self.forward(&shared.feed_forward, x.clone(), None, dropout);
                own.reshape(dims) + all.output * sigmoid(linear(&shared.gate, x.clone()))
            }
            None => own.reshape(dims),
        };
        let pooled = observe.map(|(observe, shares)| {
            let x = match observe.detach_upstream && x.is_tracked() {
                true => x.detach(),
                false => x,
            };
            let alone = Self {
                layer: self.layer,
                experts: vec![self.experts[self.column(observe.expert)]],
                gate: None,
                router: None,
            };
            let seen = alone.over_sparse(sparse, x, None, dropout).output;
            let shares = shares.unsqueeze_dim::<3>(1); // [batch, 1, seq]
            shares.matmul(seen).reshape([batch, d_model])
        });
        BankOutput {
            output,
            pooled,
            gate: self.gate.map(|_| gate.reshape([batch, seq, active])),
            dispatch: None,
            routed: Some(routed),
        }
    }

    /// The mixture over a sparse block of a choice among the active experts, `x [tokens, d_model]`:
    /// `F(x_t) + Σ_i w_i (F_{e_i}(x_t) − F(x_t))` over the entries i of token t.
    pub(crate) fn routed_over_sparse(
        &self,
        sparse: &SparseFeedForward,
        x: Tensor<2>,
        dispatch: &Dispatch,
        dropout: Option<&LoraDropout>,
    ) -> (Tensor<2>, Routed) {
        let ([tokens, d_model], top_k) = (x.dims(), sparse.top_k);
        let block = x.clone().reshape([1, tokens, d_model]);
        let routed = sparse.route(block.clone());
        let mut output = base_share(sparse, &x, &routed, dispatch);
        if !dispatch.entries.is_empty() {
            let count = dispatch.entries.len();
            let ways = dispatch.entries.iter().flat_map(|entry| {
                let first = entry.token as usize * top_k;
                let bases = &routed.experts[first..first + top_k];
                bases.iter().map(|&base| Way {
                    token: entry.token,
                    base,
                    column: entry.expert as usize,
                })
            });
            let token = dispatch.entries.iter().map(|it| i64::from(it.token));
            let token = index(token.collect(), &x.device().inner());
            let weights = routed.weights.clone().select(0, token) // [entries, top_k]
                * dispatch.weights.clone().reshape([count, 1]);
            let weights = weights.reshape([count * top_k]);
            let ways: Vec<Way> = ways.collect();
            output = output + self.networks(sparse, &x, &ways, weights, dropout);
        }
        if let Some(shared) = &sparse.shared {
            let all = self.over_dense(&shared.feed_forward, x, dispatch, dropout);
            let weight = sigmoid(linear(&shared.gate, block)).reshape([tokens, 1]);
            output = output + all * weight;
        }
        (output, routed)
    }

    /// `[tokens, d_model]`, zeros and what goes the `ways`, each at its weight: `x [tokens, d_model]`, `weights [ways]`.
    fn networks(
        &self,
        sparse: &SparseFeedForward,
        x: &Tensor<2>,
        ways: &[Way],
        weights: Tensor<1>,
        dropout: Option<&LoraDropout>,
    ) -> Tensor<2> {
        let ([experts, _, _], columns) = (sparse.gate.dims(), self.experts.len());
        let group = |way: &Way| way.base as usize * columns + way.column;
        let mut order: Vec<usize> = (0..ways.len()).collect();
        order.sort_by_key(|&way| group(&ways[way]));
        // Of each of the base's experts with each active expert's LoRAs, and of each of the base's.
        let mut fine = vec![0; experts * columns + 1];
        ways.iter().for_each(|way| fine[group(way) + 1] += 1);
        (0..experts * columns).for_each(|group| fine[group + 1] += fine[group]);
        let coarse: Vec<usize> = fine.iter().copied().step_by(columns).collect();

        let device = x.device().inner();
        let token = order.iter().map(|&way| i64::from(ways[way].token));
        let token = index(token.collect(), &device);
        let order = index(order.iter().map(|&way| way as i64).collect(), &device);
        let weights = weights.select(0, order).unsqueeze_dim(1); // [ways, 1]
        let product = |x: Tensor<2>, matrices: Tensor<3>, projection| {
            let base = grouped_linear(x.clone(), matrices, &coarse);
            let mut loras: Vec<(ExpertId, Option<&Lora>)> = Vec::new();
            for base in 0..experts {
                for &(id, expert) in &self.experts {
                    let inside = expert.inside.get(base);
                    loras.push((id, inside.and_then(|it| it.lora(projection))));
                }
            }
            let dropout = dropout.map(|dropout| (dropout, self.layer));
            match low_rank(&loras, projection, &x, &fine, dropout) {
                Some(LowRank { reduced, b }) => grouped_linear(reduced, b, &fine) + base,
                None => base,
            }
        };
        let rows = x.clone().select(0, token.clone()); // [ways, d_model]
        let h = swiglu(
            product(rows.clone(), sparse.gate.val(), Projection::Gate),
            product(rows, sparse.up.val(), Projection::Up),
        );
        let y = product(h, sparse.down.val(), Projection::Down) * weights;
        let zeros = Tensor::zeros(x.dims(), &device);
        zeros.select_assign(0, token, y, IndexingUpdateOp::Add)
    }
}

/// `(1 − Σ_i w_i) F(x_t)` without the shared network, `[tokens, d_model]`. Where a token's weights sum to one, to rounding, there is
/// nothing to compute and no gradient: they do so by how they are made, or are all but certain.
fn base_share(
    sparse: &SparseFeedForward,
    x: &Tensor<2>,
    routed: &Routed,
    dispatch: &Dispatch,
) -> Tensor<2> {
    let ([tokens, _], top_k, device) = (x.dims(), sparse.top_k, x.device().inner());
    let rest = dispatch.gates().sum_dim(1).neg() + 1.0; // [tokens, 1]
    let shares: Vec<f32> = rest.clone().into_data().iter::<f32>().collect();
    let choices = (0..tokens * top_k).filter(|choice| shares[choice / top_k].abs() > 1e-5);
    let choices: Vec<usize> = choices.collect();
    if choices.is_empty() {
        return Tensor::zeros(x.dims(), &device);
    }
    let entries = Entries {
        token: choices.iter().map(|it| (it / top_k) as u32).collect(),
        expert: choices.iter().map(|&it| routed.experts[it]).collect(),
    };
    let weights = (routed.weights.clone() * rest).reshape([tokens * top_k]);
    let choices = index(choices.iter().map(|&it| it as i64).collect(), &device);
    let weights = weights.select(0, choices);
    let [gate, up, down] = [&sparse.gate, &sparse.up, &sparse.down].map(|it| it.val());
    sparse_ffn(x.clone(), gate, up, down, &entries, weights)
}

fn index(numbers: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), device)
}
