//! Out of Burn's operations.

use burn::tensor::{Tensor, TensorData, module};

use super::{Loras, MoeFfn, Observed};
use crate::dropout::Mask;
use crate::{Matrix, swiglu};

pub(super) fn moe_ffn(
    x: Tensor<2>,
    weights: Tensor<2>,
    loras: [Loras; 3],
    base: [Matrix; 3],
    shares: Tensor<2>,
    settings: &MoeFfn,
) -> (Tensor<2>, Option<Tensor<2>>) {
    let [batch, seq] = shares.dims();
    let base = base.map(|weight| weight.to_tensor(x.dtype(), &x.device()));
    let product = |x: Tensor<2>, weight: &Tensor<2>| module::linear(x, weight.clone(), None);
    let start = [
        x.clone(),
        product(x.clone(), &base[0]),
        product(x, &base[1]),
    ];

    let (mut hidden, mut codes) = (Vec::new(), Vec::new());
    for expert in 0..settings.experts {
        let (h, code) = run(expert, start.clone(), &loras, settings);
        let weight = weights.clone().narrow(1, expert, 1);
        hidden.push(h * weight.clone());
        codes.push(code * weight);
    }
    let sum = hidden.into_iter().reduce(|sum, h| sum + h);
    let output = product(sum.expect("at least one expert is active"), &base[2])
        + Tensor::cat(codes, 1).matmul(loras[2].b.clone());

    let pooled = settings.observed.map(|Observed { expert, detached }| {
        let start = if detached {
            start.map(Tensor::detach)
        } else {
            start
        };
        let (h, code) = run(expert, start, &loras, settings);
        let pool = |y: Tensor<2>| {
            let [_, width] = y.dims();
            let shares = shares.clone().reshape([batch, 1, seq]);
            let pooled = shares.matmul(y.reshape([batch, seq, width]));
            pooled.reshape([batch, width])
        };
        let b = loras[2]
            .b
            .clone()
            .narrow(0, expert * settings.rank, settings.rank);
        product(pool(h), &base[2]) + pool(code).matmul(b)
    });
    (output, pooled)
}

/// One expert from `[x, base gate, base up]`: hidden state `[tokens, d_ff]` and its code on the way into down `[tokens, rank]`.
fn run(
    expert: usize,
    [x, gate, up]: [Tensor<2>; 3],
    loras: &[Loras; 3],
    settings: &MoeFfn,
) -> (Tensor<2>, Tensor<2>) {
    let rank = settings.rank;
    let code = |x: Tensor<2>, projection: usize| {
        let x = match &settings.dropout {
            Some(dropout) => masked(x, &dropout.masks[expert][projection]),
            None => x,
        };
        let a = loras[projection].a.clone().narrow(1, expert * rank, rank);
        x.matmul(a) * settings.scaling
    };
    let adapted = |x: Tensor<2>, base: Tensor<2>, projection: usize| {
        let b = loras[projection].b.clone().narrow(0, expert * rank, rank);
        code(x, projection).matmul(b) + base
    };
    let h = swiglu(adapted(x.clone(), gate, 0), adapted(x, up, 1));
    (h.clone(), code(h, 2))
}

fn masked(x: Tensor<2>, mask: &Mask) -> Tensor<2> {
    let [rows, columns] = x.dims();
    let factors = TensorData::new(mask.factors(rows, columns), [rows, columns]);
    let factors = Tensor::from_data(factors, &x.device().inner());
    x * factors
}
