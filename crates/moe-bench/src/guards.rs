//! The main kernels on small fixed shapes, for counting instructions: `cargo xtask guards`.
//!
//! What a call costs is the difference between a run with few calls and one with more, so that neither starting nor drawing numbers
//! counts. Values come from a formula: nothing is random, and every run does the same work.

use std::hint::black_box;

use burn::optim::Optimizer;
use burn::tensor::{Device, Tensor, TensorData};
use moe_kernels::{AdamW, AttentionShape, BlockFormat, Blocks, Entries, Loras, MoeFfn, Observed};
use moe_kernels::{
    add_rms_norm, attention, linear, moe_ffn, rms_norm, sparse_ffn, token_cross_entropy, token_gate,
};

const BATCH: usize = 2;
const SEQ: usize = 48;
const TOKENS: usize = BATCH * SEQ;
const D_MODEL: usize = 192;
const D_FF: usize = 512;
const VOCABULARY: usize = 3000;
const HEAD_DIM: usize = 64;
const EXPERTS: usize = 2;
const RANK: usize = 8;

/// A call of a kernel.
pub type Call = Box<dyn Fn()>;
/// A kernel's name, and what makes a call of it.
pub type Kernel = (&'static str, fn() -> Call);

/// All of them.
pub const KERNELS: [Kernel; 18] = [
    ("linear", || product(false)),
    ("linear_and_backward", || product(true)),
    ("linear_in_blocks", || in_blocks(TOKENS, false)),
    ("linear_in_blocks_and_backward", || in_blocks(TOKENS, true)),
    ("row_times_blocks", || in_blocks(1, false)),
    ("rms_norm", || norm(false)),
    ("rms_norm_and_backward", || norm(true)),
    ("add_rms_norm_and_backward", residual),
    ("token_gate_and_backward", gate),
    ("attention", || attend(false)),
    ("attention_and_backward", || attend(true)),
    ("token_cross_entropy", || losses(false)),
    ("token_cross_entropy_and_backward", || losses(true)),
    ("adamw", optimise),
    ("moe_ffn", || feed_forward(false)),
    ("moe_ffn_and_backward", || feed_forward(true)),
    ("sparse_ffn", || sparse(false)),
    ("sparse_ffn_and_backward", || sparse(true)),
];

/// Calls a kernel this many times. False when there is none of that name.
pub fn run(name: &str, calls: usize) -> bool {
    let Some((_, make)) = KERNELS.iter().find(|(known, _)| *known == name) else {
        return false;
    };
    let call = make();
    for _ in 0..calls {
        call();
    }
    true
}

/// Numbers of about `size` around zero.
fn numbers<const D: usize>(shape: [usize; D], size: f32) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|index: usize| size * ((index * 7919 % 2003) as f32 / 1001.0 - 1.0))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// On the autodiff device where a gradient is wanted.
fn input<const D: usize>(x: &Tensor<D>, backward: bool) -> Tensor<D> {
    match backward {
        true => x.clone().autodiff().require_grad(),
        false => x.clone(),
    }
}

/// Runs what there is to run.
fn finish<const D: usize>(y: Tensor<D>, backward: bool) {
    if backward {
        black_box(y.sum().backward());
    } else {
        black_box(y);
    }
}

fn product(backward: bool) -> Call {
    let (x, weight) = (
        numbers([TOKENS, D_MODEL], 1.0),
        numbers([D_MODEL, D_FF], 0.1),
    );
    Box::new(move || finish(linear(input(&x, backward), weight.clone()), backward))
}

fn in_blocks(rows: usize, backward: bool) -> Call {
    let x = numbers([rows, D_MODEL], 1.0);
    let format = BlockFormat::Q4_1;
    let bytes = D_FF * D_MODEL / format.elements() * format.bytes();
    // Scales and offsets of half precision that are small, between bytes of all kinds.
    let byte = |at: usize| match at % format.bytes() {
        1 | 3 => 0x20,
        _ => (at * 7919 % 251) as u8,
    };
    let blocks = Blocks::new(format, (0..bytes).map(byte).collect(), [D_FF, D_MODEL]);
    let blocks = blocks.expect("whole blocks");
    Box::new(move || finish(linear(input(&x, backward), blocks.clone()), backward))
}

fn norm(backward: bool) -> Call {
    let (x, gamma) = (numbers([TOKENS, D_MODEL], 1.0), numbers([D_MODEL], 1.0));
    Box::new(move || finish(rms_norm(input(&x, backward), gamma.clone(), 1e-5), backward))
}

fn residual() -> Call {
    let [x, y] = [1.0, 0.5].map(|size| numbers([TOKENS, D_MODEL], size));
    let gamma = numbers([D_MODEL], 1.0);
    Box::new(move || {
        let (x, y) = (input(&x, true), input(&y, true));
        let (sum, normed) = add_rms_norm(x, y, gamma.clone(), 1e-5);
        finish(sum + normed, true);
    })
}

fn gate() -> Call {
    let x = numbers([TOKENS, D_MODEL], 1.0);
    let weight = numbers([D_MODEL, EXPERTS], 0.1);
    Box::new(move || finish(token_gate(input(&x, true), input(&weight, true)), true))
}

fn losses(backward: bool) -> Call {
    let (hidden, words) = (
        numbers([EXPERTS * RANK, D_MODEL], 1.0),
        numbers([VOCABULARY, D_MODEL], 0.1).transpose(),
    );
    let targets: Vec<usize> = (0..EXPERTS * RANK).collect();
    Box::new(move || {
        let losses = token_cross_entropy(input(&hidden, backward), words.clone(), &targets);
        finish(losses, backward);
    })
}

fn optimise() -> Call {
    let optimizer = AdamW::new([0.9, 0.999], 1e-8, 0.01);
    let (parameter, gradient) = (
        numbers([TOKENS, D_MODEL], 1.0),
        numbers([TOKENS, D_MODEL], 0.1),
    );
    Box::new(move || {
        black_box(optimizer.step(1e-3, parameter.clone(), gradient.clone(), None));
    })
}

fn attend(backward: bool) -> Call {
    let qkv = [D_MODEL, HEAD_DIM, HEAD_DIM].map(|width| numbers([BATCH, SEQ, width], 1.0));
    let angles = numbers([BATCH, SEQ, HEAD_DIM / 2], 3.0);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let real = Tensor::<2>::ones([BATCH, SEQ], &Device::flex());
    let shape = AttentionShape {
        kv_heads: 1,
        head_dim: HEAD_DIM,
        window: None,
    };
    Box::new(move || {
        let [query, key, value] = [&qkv[0], &qkv[1], &qkv[2]].map(|x| input(x, backward));
        let (cos, sin) = (cos.clone(), sin.clone());
        finish(
            attention(query, key, value, cos, sin, real.clone(), shape),
            backward,
        );
    })
}

fn sparse(backward: bool) -> Call {
    let experts = 2 * EXPERTS;
    let x = numbers([TOKENS, D_MODEL], 1.0);
    let matrices = [[D_MODEL, D_FF], [D_MODEL, D_FF], [D_FF, D_MODEL]];
    let matrices = matrices.map(|[d_in, d_out]| numbers([experts, d_in, d_out], 0.1));
    let weights = numbers([2 * TOKENS], 0.5);
    // Two for each token, the first expert for twice as many as others.
    let entries = Entries {
        token: (0..2 * TOKENS as u32).map(|entry| entry / 2).collect(),
        expert: (0..2 * TOKENS as u32)
            .map(|entry| entry % 5 % experts as u32)
            .collect(),
    };
    Box::new(move || {
        let [gate, up, down] = matrices.clone();
        let (x, weights) = (input(&x, backward), input(&weights, backward));
        finish(sparse_ffn(x, gate, up, down, &entries, weights), backward);
    })
}

fn feed_forward(backward: bool) -> Call {
    let (x, g) = (
        numbers([TOKENS, D_MODEL], 1.0),
        numbers([TOKENS, EXPERTS], 0.5),
    );
    let sizes = [(D_MODEL, D_FF), (D_MODEL, D_FF), (D_FF, D_MODEL)];
    let base = sizes.map(|(d_in, d_out)| numbers([d_in, d_out], 0.1));
    let loras = sizes.map(|(d_in, d_out)| {
        let codes = EXPERTS * RANK;
        (numbers([d_in, codes], 0.1), numbers([codes, d_out], 0.1))
    });
    let shares = numbers([BATCH, SEQ], 0.0).add_scalar(1.0 / SEQ as f32);
    let settings = MoeFfn {
        experts: EXPERTS,
        rank: RANK,
        scaling: 2.0,
        observed: Some(Observed {
            expert: 0,
            detached: false,
        }),
        dropout: None,
    };
    Box::new(move || {
        let [gate, up, down] = [&loras[0], &loras[1], &loras[2]].map(|(a, b)| Loras {
            a: input(a, backward),
            b: input(b, backward),
        });
        let (y, pooled) = moe_ffn(
            input(&x, backward),
            input(&g, backward),
            [gate, up, down],
            base.clone(),
            shares.clone(),
            settings.clone(),
        );
        match pooled {
            Some(pooled) => finish(Tensor::cat(vec![y, pooled], 0), backward),
            None => finish(y, backward),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_can_be_called() {
        for (name, _) in KERNELS {
            assert!(run(name, 1), "{name}");
        }
        assert!(!run("none", 1));
    }
}
