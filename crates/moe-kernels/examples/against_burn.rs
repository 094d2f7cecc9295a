//! Each fused operation against the composition of Burn's operations, forward and backward, on the shapes of a 135M model.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Int, Tensor, activation};
use moe_kernels::{
    AttentionShape, attend, attention, attention_bias, linear, rms_norm, rotate, swiglu,
    token_cross_entropy,
};

const BATCH: usize = 8;
const SEQ: usize = 96;
const D_MODEL: usize = 576;
const D_FF: usize = 1536;
const HEAD_DIM: usize = 64;
const KV_HEADS: usize = 3;
/// Answers' tokens of a batch, and the words that each may be.
const ANSWERS: usize = 32;
const VOCABULARY: usize = 49_152;
const ROUNDS: usize = 7;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn leaf<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    x.clone().autodiff().require_grad()
}

/// Median milliseconds of `f` and its gradient, for the fused and the composed form in turn.
fn compare<const D: usize>(
    name: &str,
    fused: impl Fn() -> Tensor<D>,
    composed: impl Fn() -> Tensor<D>,
) {
    let time = |f: &dyn Fn() -> Tensor<D>| {
        let start = Instant::now();
        f().sum().backward();
        1e3 * start.elapsed().as_secs_f64()
    };
    let (mut ours, mut burns) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(time(&fused));
        burns.push(time(&composed));
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    let (ours, burns) = (median(ours), median(burns));
    println!(
        "{name:<20} {ours:>9.2} ms {burns:>9.2} ms {:>7.1}×",
        burns / ours
    );
}

fn main() {
    moe_kernels::set_up_process();
    Device::flex().seed(0);
    println!(
        "{:<20} {:>12} {:>12} {:>8}",
        "operation", "fused", "composed", "faster"
    );
    let tokens = BATCH * SEQ;
    let x = random([tokens, D_MODEL]);
    let weight = random([D_MODEL, D_FF]);
    compare(
        "linear",
        || linear(leaf(&x), weight.clone()),
        || leaf(&x).matmul(weight.clone()),
    );

    let gamma = random([D_MODEL]);
    compare(
        "rms_norm",
        || rms_norm(leaf(&x), gamma.clone(), 1e-5),
        || {
            let x = leaf(&x);
            let scale = (x.clone().square().mean_dim(1) + 1e-5).sqrt();
            x / scale * gamma.clone().unsqueeze()
        },
    );

    let (gate, up) = (random([tokens, D_FF]), random([tokens, D_FF]));
    compare(
        "swiglu",
        || swiglu(leaf(&gate), leaf(&up)),
        || activation::silu(leaf(&gate)) * leaf(&up),
    );

    let hidden = random([ANSWERS, D_MODEL]);
    let words = random([VOCABULARY, D_MODEL]).transpose();
    let answers: Vec<usize> = (0..ANSWERS).map(|row| row * 1000).collect();
    let targets = Tensor::<1, Int>::arange(0..ANSWERS as i64, &Device::flex()) * 1000;
    compare(
        "token_cross_entropy",
        || token_cross_entropy(leaf(&hidden), words.clone(), &answers),
        || {
            let all = activation::log_softmax(leaf(&hidden).matmul(words.clone()), 1);
            all.gather(1, targets.clone().unsqueeze_dim(1)).squeeze()
        },
    );

    let heads = D_MODEL / HEAD_DIM;
    let query = random([BATCH, SEQ, D_MODEL]);
    let key = random([BATCH, SEQ, KV_HEADS * HEAD_DIM]);
    let value = random([BATCH, SEQ, KV_HEADS * HEAD_DIM]);
    let angles = random([BATCH, SEQ, HEAD_DIM / 2]);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let real = Tensor::<2>::ones([BATCH, SEQ], &Device::flex());
    let bias = attention_bias(real.clone().greater_elem(0.5), 0, None);
    let shape = AttentionShape {
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        window: None,
    };
    compare(
        "attention",
        || {
            let [query, key, value] = [&query, &key, &value].map(leaf);
            attention(
                query,
                key,
                value,
                cos.clone(),
                sin.clone(),
                real.clone(),
                shape,
            )
        },
        || {
            let split = |x: &Tensor<3>, heads| leaf(x).reshape([BATCH, SEQ, heads, HEAD_DIM]);
            let (cos, sin) = (cos.clone().unsqueeze_dim(2), sin.clone().unsqueeze_dim(2));
            attend(
                rotate(split(&query, heads), cos.clone(), sin.clone()),
                rotate(split(&key, KV_HEADS), cos, sin).swap_dims(1, 2),
                split(&value, KV_HEADS).swap_dims(1, 2),
                bias.clone(),
            )
        },
    );
}
