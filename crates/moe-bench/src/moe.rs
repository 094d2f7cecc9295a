//! What dispatch, expert products and combine of a sparse mixture cost, against one dense product of the same active FLOPs.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use burn::tensor::{DType, Device, Tensor};
use clap::{Args, ValueEnum};
use moe_core::model::BaseDtype;
use moe_kernels::{Entries, linear, sparse_ffn};

use crate::shapes::{device, matrix};

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Numbers of experts, at the same active FLOPs
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "8,16,32,64"
    )]
    experts: Vec<usize>,
    /// Tokens of a call
    #[arg(long, value_name = "N", default_value_t = 4096)]
    tokens: usize,
    /// Experts of a token
    #[arg(long, value_name = "K", default_value_t = 2)]
    top_k: usize,
    /// Width of the tokens
    #[arg(long, value_name = "N", default_value_t = 512)]
    d_model: usize,
    /// Width of an expert
    #[arg(long, value_name = "N", default_value_t = 1024)]
    d_ff: usize,
    /// Number format of the matrices, f32 or bf16; those in bf16 are not trained
    #[arg(long, value_name = "DTYPE", default_value_t)]
    dtype: BaseDtype,
    /// How tokens choose
    #[arg(long, value_enum, default_value_t = Choice::Random)]
    routing: Choice,
    /// Matrices stored the other way round, as checkpoints have them
    #[arg(long)]
    turned: bool,
    /// Times that each is timed, in turn
    #[arg(long, value_name = "N", default_value_t = 9)]
    repetitions: usize,
}

/// How tokens choose their experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// All alike, by chance
    Random,
    /// Half of the tokens the same
    Skewed,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Forward,
    /// Gradients of tokens and weights.
    Frozen,
    /// Gradients of the experts' matrices too.
    Trained,
}

impl Pass {
    const ALL: [Self; 3] = [Self::Forward, Self::Frozen, Self::Trained];

    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Frozen => "forward, backward",
            Self::Trained => "forward, backward, trained",
        }
    }

    /// Products of the size of the forward pass.
    fn products(self) -> f64 {
        match self {
            Self::Forward => 1.0,
            Self::Frozen => 2.0,
            Self::Trained => 3.0,
        }
    }
}

/// Seconds of one round.
struct Times {
    dense: f64,
    /// For each number of experts.
    sparse: Vec<f64>,
}

/// Times dense and sparse in turn and prints a line for each pass and number of experts.
///
/// # Errors
/// When nothing can be written.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let device = device();
    let dtype = match options.dtype {
        BaseDtype::F32 | BaseDtype::Stored => DType::F32,
        BaseDtype::Bf16 => DType::BF16,
    };
    let dense = Dense::new(options, dtype, &device);
    let sparse: Vec<Sparse> = options
        .experts
        .iter()
        .map(|&experts| Sparse::new(options, experts, dtype, &device))
        .collect();
    let flops = 6.0 * (options.tokens * options.top_k * options.d_model * options.d_ff) as f64;
    writeln!(
        out,
        "{} tokens, top {}, d_model {}, d_ff {}, {}{}, {:?} routing, {} threads; medians of {}",
        options.tokens,
        options.top_k,
        options.d_model,
        options.d_ff,
        options.dtype,
        if options.turned { " turned" } else { "" },
        options.routing,
        rayon::current_num_threads(),
        options.repetitions,
    )?;
    writeln!(
        out,
        "{:26}  experts  dense ms  sparse ms  GFLOP/s  speed of dense  time of {} experts",
        "pass", options.experts[0]
    )?;
    let passes = Pass::ALL.into_iter();
    for pass in passes.filter(|&pass| pass != Pass::Trained || dtype == DType::F32) {
        // The first round warms up.
        let mut times = Vec::new();
        for round in 0..=options.repetitions {
            let round_times = Times {
                dense: seconds(|| dense.run(pass)),
                sparse: sparse.iter().map(|it| seconds(|| it.run(pass))).collect(),
            };
            if round > 0 {
                times.push(round_times);
            }
        }
        for (place, experts) in options.experts.iter().enumerate() {
            let of = |number: &dyn Fn(&Times) -> f64| median(times.iter().map(number));
            let time = of(&|times| times.sparse[place]);
            writeln!(
                out,
                "{:26}  {experts:7}  {:8.1}  {:9.1}  {:7.0}  {:12.1} %  {:.3}",
                pass.name(),
                1e3 * of(&|times| times.dense),
                1e3 * time,
                pass.products() * flops / time * 1e-9,
                100.0 * of(&|times| times.dense / times.sparse[place]),
                of(&|times| times.sparse[place] / times.sparse[0]),
            )?;
        }
    }
    Ok(())
}

/// One product of as many FLOPs as the experts that are active, and those of its gradients, nothing else.
struct Dense {
    x: Tensor<2>,
    weight: Tensor<2>,
    grad: Tensor<2>,
}

impl Dense {
    fn new(options: &Options, dtype: DType, device: &Device) -> Self {
        let (rows, wide) = (options.tokens * options.top_k, 3 * options.d_ff);
        let weight = match options.turned {
            true => matrix(wide, options.d_model, device).transpose(),
            false => matrix(options.d_model, wide, device),
        };
        Self {
            x: matrix(rows, options.d_model, device),
            weight: weight.cast(dtype),
            grad: matrix(rows, wide, device),
        }
    }

    fn run(&self, pass: Pass) {
        black_box(linear(self.x.clone(), self.weight.clone()));
        if pass != Pass::Forward {
            black_box(linear(self.grad.clone(), self.weight.clone().transpose()));
        }
        if pass == Pass::Trained {
            black_box(self.x.clone().transpose().matmul(self.grad.clone()));
        }
    }
}

struct Sparse {
    x: Tensor<2>,
    matrices: [Tensor<3>; 3],
    weights: Tensor<1>,
    entries: Entries,
}

impl Sparse {
    fn new(options: &Options, experts: usize, dtype: DType, device: &Device) -> Self {
        let Options { d_model, d_ff, .. } = *options;
        let mut seed = 1u64;
        let mut draw = |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let mut entries = Entries::default();
        for token in 0..options.tokens {
            let first = match options.routing {
                Choice::Skewed if draw(2) == 0 => 0,
                _ => draw(experts),
            };
            let second = draw(experts.saturating_sub(options.top_k).max(1));
            for place in 0..options.top_k {
                // Others than the first.
                let other = (first + place + if place > 0 { second } else { 0 }) % experts;
                entries.token.push(token as u32);
                entries.expert.push(other as u32);
            }
        }
        let stack = |d_in: usize, d_out: usize| {
            let (rows, columns) = if options.turned {
                (d_out, d_in)
            } else {
                (d_in, d_out)
            };
            let stack = matrix(experts * rows, columns, device) * 0.05;
            let stack = stack.cast(dtype).reshape([experts, rows, columns]);
            if options.turned {
                stack.swap_dims(1, 2)
            } else {
                stack
            }
        };
        Self {
            x: matrix(options.tokens, d_model, device),
            matrices: [
                stack(d_model, d_ff),
                stack(d_model, d_ff),
                stack(d_ff, d_model),
            ],
            weights: Tensor::ones([entries.token.len()], device) / options.top_k as f64,
            entries,
        }
    }

    fn run(&self, pass: Pass) {
        let [gate, up, down] = self.matrices.clone();
        let (x, weights, entries) = (self.x.clone(), self.weights.clone(), &self.entries);
        if pass == Pass::Forward {
            black_box(sparse_ffn(x, gate, up, down, entries, weights));
            return;
        }
        let [x, weights] = [x.unsqueeze::<2>(), weights.unsqueeze::<2>()]
            .map(|leaf| Tensor::from_inner(leaf).require_grad());
        let matrices = [gate, up, down].map(|matrix| match pass {
            Pass::Trained => Tensor::from_inner(matrix).require_grad(),
            _ => matrix,
        });
        let [gate, up, down] = matrices;
        let output = sparse_ffn(x, gate, up, down, entries, weights.squeeze_dim(0));
        black_box(output.sum().backward());
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
