//! Experts among which a router picks for each token: products over the tokens that an expert gets, and no others.

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use moe_core::model::{FeedForward, FeedForwardBlock, Routed};
use moe_kernels::{grouped_linear, linear, swiglu};

use crate::hidden::Start;
use crate::router::Dispatch;
use crate::stacked::widened;
use crate::{BankOutput, ExpertBank, ExpertId, Lora, LoraDropout, Pass, Projection};

impl ExpertBank<'_> {
    /// The sparse mixture for `x [batch, seq, d_model]` (already normed): with F the base's block and `F_e` the same with the LoRAs of
    /// expert e on it, over the entries i of token t
    ///
    /// ```text
    /// y_t = F(x_t) + Σ_i w_i (F_{e_i}(x_t) − F(x_t))
    /// ```
    ///
    /// which is `Σ_i w_i F_{e_i}(x_t)` where a token's weights sum to one (MixLoRA, arXiv 2404.15159). A token that was dropped, or
    /// is padding, is the base's.
    ///
    /// # Panics
    ///
    /// When no router picks experts here, or `pass` is of another number of tokens.
    pub fn forward_routed(
        &self,
        block: &FeedForwardBlock,
        x: Tensor<3>,
        pass: &Pass,
        dropout: Option<&LoraDropout>,
    ) -> BankOutput {
        let router = self.router.expect("a router picks the experts");
        let dims @ [batch, seq, d_model] = x.dims();
        let rows = x.clone().reshape([batch * seq, d_model]);
        let dispatch = pass.choice(self.layer, router, &rows);
        let (output, routed) = self.follow(block, rows, &dispatch, dropout);
        BankOutput {
            output: output.reshape(dims),
            pooled: None,
            gate: Some(dispatch.gates().reshape([batch, seq, self.experts.len()])),
            dispatch: Some(dispatch),
            routed,
        }
    }

    /// The mixture for `x [tokens, d_model]` of a choice that has been made, and what the router of a sparse base chose besides.
    ///
    /// # Panics
    ///
    /// When the choice is of other tokens or experts.
    pub fn follow(
        &self,
        block: &FeedForwardBlock,
        x: Tensor<2>,
        dispatch: &Dispatch,
        dropout: Option<&LoraDropout>,
    ) -> (Tensor<2>, Option<Routed>) {
        assert_eq!(dispatch.tokens, x.dims()[0], "a choice for other tokens");
        assert_eq!(
            dispatch.experts,
            self.experts.len(),
            "a choice of other experts"
        );
        match block {
            FeedForwardBlock::Dense(ffn) => (self.over_dense(ffn, x, dispatch, dropout), None),
            FeedForwardBlock::Sparse(sparse) => {
                let (output, routed) = self.routed_over_sparse(sparse, x, dispatch, dropout);
                (output, Some(routed))
            }
        }
    }

    /// `F_e − F` is `W₂ (h_e − h) + s B_e A_e h_e` with h what goes into the base's `down`, so that the base's three products are made once
    /// per token, and the experts' low-rank ones once per entry.
    pub(crate) fn over_dense(
        &self,
        ffn: &FeedForward,
        x: Tensor<2>,
        dispatch: &Dispatch,
        dropout: Option<&LoraDropout>,
    ) -> Tensor<2> {
        let start = Start::new(ffn, x);
        let h = swiglu(start.gate.clone(), start.up.clone()); // [tokens, d_ff]
        let down = |h| linear(h, ffn.down.weight.val());
        if dispatch.entries.is_empty() {
            return down(h);
        }
        let rows = Rows::new(dispatch, &h.device().inner());
        let x = rows.gathered(&start.x); // [entries, d_model]
        let side = |base: &Tensor<2>, projection| {
            let base = rows.gathered(base);
            match self.low_rank(projection, &x, &rows.bounds, dropout) {
                Some(LowRank { reduced, b }) => grouped_linear(reduced, b, &rows.bounds) + base,
                None => base,
            }
        };
        let own = swiglu(
            side(&start.gate, Projection::Gate),
            side(&start.up, Projection::Up),
        ); // [entries, d_ff]
        let change = (own.clone() - rows.gathered(&h)) * rows.weights.clone();
        let y = down(rows.added_to(h, change));
        match self.low_rank(Projection::Down, &own, &rows.bounds, dropout) {
            Some(LowRank { reduced, b }) => {
                let weighed = reduced * rows.weights.clone();
                rows.added_to(y, grouped_linear(weighed, b, &rows.bounds))
            }
            None => y,
        }
    }

    /// [`low_rank()`] of rows sorted by expert.
    fn low_rank(
        &self,
        projection: Projection,
        x: &Tensor<2>,
        bounds: &[usize],
        dropout: Option<&LoraDropout>,
    ) -> Option<LowRank> {
        let loras = self
            .experts
            .iter()
            .map(|(id, it)| (*id, it.lora(projection)));
        let dropout = dropout.map(|dropout| (dropout, self.layer));
        low_rank(&loras.collect::<Vec<_>>(), projection, x, bounds, dropout)
    }
}

/// What `loras` on `projection`, one per group, make of `x [rows, d_in]`, where group g has the rows `bounds[g]..bounds[g + 1]`; nothing
/// where no group has one. Rows of different groups may lose the same numbers by `dropout`, of a layer.
pub(crate) fn low_rank(
    loras: &[(ExpertId, Option<&Lora>)],
    projection: Projection,
    x: &Tensor<2>,
    bounds: &[usize],
    dropout: Option<(&LoraDropout, usize)>,
) -> Option<LowRank> {
    let (a, b, scaling) = stacked(loras)?;
    let x = match dropout {
        None => x.clone(),
        Some((dropout, layer)) => {
            let groups = bounds.windows(2).zip(loras);
            let groups = groups.filter(|(bounds, _)| bounds[0] < bounds[1]);
            let dropped = groups.map(|(bounds, (id, _))| {
                let x = x.clone().narrow(0, bounds[0], bounds[1] - bounds[0]);
                dropout.at(layer, *id).apply(x, projection)
            });
            Tensor::cat(dropped.collect(), 0)
        }
    };
    let reduced = grouped_linear(x, a, bounds) * scaling;
    Some(LowRank { reduced, b })
}

/// Half-way through the LoRAs of some rows.
pub(crate) struct LowRank {
    /// `scaling · x A`, `[rows, rank]`.
    pub(crate) reduced: Tensor<2>,
    /// `[groups, rank, d_out]`.
    pub(crate) b: Tensor<3>,
}

/// A `[groups, d_in, rank]`, B `[groups, rank, d_out]` and their scaling, of a LoRA per group: lower ranks are filled up with zeros, and
/// another scaling goes into B. Nothing where no group has one.
fn stacked(loras: &[(ExpertId, Option<&Lora>)]) -> Option<(Tensor<3>, Tensor<3>, f64)> {
    let there = || loras.iter().filter_map(|(_, lora)| *lora);
    let first = there().next()?;
    let rank = there().map(|lora| lora.b.dims()[0]).max()?;
    let scaling = there().map(|lora| lora.scaling).find(|it| *it != 0.0)?;
    let ([d_in, _], [_, d_out]) = (first.a.dims(), first.b.dims());
    let device = first.a.val().device();
    let pairs = loras.iter().map(|(_, lora)| match lora {
        Some(lora) => widened(lora, rank, scaling),
        None => (
            Tensor::zeros([d_in, rank], &device),
            Tensor::zeros([rank, d_out], &device),
        ),
    });
    let (a, b): (Vec<_>, Vec<_>) = pairs.unzip();
    Some((Tensor::stack(a, 0), Tensor::stack(b, 0), scaling))
}

/// The entries of a dispatch sorted by expert.
struct Rows {
    /// Of each entry, `[entries]`.
    token: Tensor<1, Int>,
    /// Of each entry, `[entries, 1]`.
    weights: Tensor<2>,
    /// Entries of each expert: from this one, `[experts + 1]`.
    bounds: Vec<usize>,
}

impl Rows {
    /// Of a choice of at least one expert.
    fn new(dispatch: &Dispatch, device: &Device) -> Self {
        let sorted = dispatch.by_expert();
        let count = sorted.order.len();
        let index = |numbers: Vec<i64>| {
            Tensor::<1, Int>::from_data(TensorData::new(numbers, [count]), device)
        };
        let order = sorted.order.iter();
        let token = order.map(|&entry| i64::from(dispatch.entries[entry as usize].token));
        let token = index(token.collect());
        let order = index(sorted.order.iter().map(|&entry| i64::from(entry)).collect());
        let weights = dispatch.weights.clone().select(0, order);
        Self {
            token,
            weights: weights.unsqueeze_dim(1),
            bounds: sorted.starts,
        }
    }

    /// `x [tokens, n]` → `[entries, n]`, each entry with its token's.
    fn gathered(&self, x: &Tensor<2>) -> Tensor<2> {
        x.clone().select(0, self.token.clone())
    }

    /// `y [tokens, n]` with `rows [entries, n]` added to their tokens'.
    fn added_to(&self, y: Tensor<2>, rows: Tensor<2>) -> Tensor<2> {
        y.select_assign(0, self.token.clone(), rows, IndexingUpdateOp::Add)
    }
}

#[cfg(test)]
mod tests;
