//! A sparse mixture's experts against the obvious loop over its entries.

use burn::tensor::{DType, Device, Tensor, activation};
use moe_kernels::{Entries, sparse_ffn};

use super::{Random, assert_near, grad, tracked};

/// What the operation reads.
#[derive(Clone)]
struct Inputs {
    x: Tensor<2>,
    /// Gate, up and down.
    matrices: [Tensor<3>; 3],
    weights: Tensor<1>,
}

impl Inputs {
    fn draw(random: &Random, sizes: Sizes, entries: &Entries) -> Self {
        let Sizes {
            tokens,
            experts,
            d_model,
            d_ff,
        } = sizes;
        let into = (d_model as f64).sqrt().recip();
        let out_of = (d_ff as f64).sqrt().recip();
        let matrices = [
            random.normal([experts, d_model, d_ff]) * into,
            random.normal([experts, d_model, d_ff]) * into,
            random.normal([experts, d_ff, d_model]) * out_of,
        ];
        Self {
            x: random.normal([tokens, d_model]),
            matrices,
            weights: random.normal([entries.token.len()]),
        }
    }

    /// The same numbers with the experts' matrices stored the other way round.
    fn turned(mut self) -> Self {
        self.matrices = self.matrices.map(|it| {
            let [experts, d_in, d_out] = it.dims();
            let stored = it.swap_dims(1, 2).into_data();
            let stored: Vec<f32> = stored.iter().collect();
            let stored = Tensor::<1>::from_floats(stored.as_slice(), &Device::flex());
            stored.reshape([experts, d_out, d_in]).swap_dims(1, 2)
        });
        self
    }

    fn cast(mut self, dtype: DType) -> Self {
        self.matrices = self.matrices.map(|it| it.cast(dtype));
        self
    }

    /// Leaves of a graph, the matrices among them where they are `trained`.
    fn tracked(&self, trained: [bool; 3]) -> Self {
        let mut trained = trained.into_iter();
        let matrices = self
            .matrices
            .each_ref()
            .map(|it| match trained.next() == Some(true) {
                true => tracked(it),
                false => it.clone(),
            });
        Self {
            x: tracked(&self.x),
            matrices,
            weights: tracked(&self.weights),
        }
    }

    fn output(&self, entries: &Entries) -> Tensor<2> {
        let [gate, up, down] = self.matrices.clone();
        sparse_ffn(
            self.x.clone(),
            gate,
            up,
            down,
            entries,
            self.weights.clone(),
        )
    }

    /// Entry by entry.
    fn obvious(&self, entries: &Entries) -> Tensor<2> {
        let [_, d_model] = self.x.dims();
        let matrix = |side: usize, expert: usize| {
            let stack = self.matrices[side].clone().cast(DType::F32);
            let [_, d_in, d_out] = stack.dims();
            stack.narrow(0, expert, 1).reshape([d_in, d_out])
        };
        let mut rows: Vec<Tensor<2>> = (0..self.x.dims()[0])
            .map(|token| self.x.clone().narrow(0, token, 1) * 0.0)
            .collect();
        for (entry, (&token, &expert)) in entries.token.iter().zip(&entries.expert).enumerate() {
            let (token, expert) = (token as usize, expert as usize);
            let x = self.x.clone().narrow(0, token, 1);
            let gate = activation::silu(x.clone().matmul(matrix(0, expert)));
            let y = (gate * x.matmul(matrix(1, expert))).matmul(matrix(2, expert));
            let weight = self.weights.clone().narrow(0, entry, 1);
            rows[token] = rows[token].clone() + y * weight.reshape([1, 1]).expand([1, d_model]);
        }
        Tensor::cat(rows, 0)
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    experts: usize,
    d_model: usize,
    d_ff: usize,
}

/// Two experts a token, any of them.
fn random_routing(random: &Random, sizes: Sizes) -> Entries {
    routing(sizes, |_| {
        let first = (random.uniform() * sizes.experts as f64) as usize;
        vec![first, (first + 1) % sizes.experts]
    })
}

/// Nearly all tokens on expert 1, some on none, one on all; the last expert sees nobody else.
fn skewed_routing(sizes: Sizes) -> Entries {
    routing(sizes, |token| match token {
        3 => (0..sizes.experts).rev().collect(),
        _ if token % 7 == 0 => vec![],
        _ if token % 5 == 0 => vec![1, 0],
        _ => vec![1],
    })
}

fn routing(sizes: Sizes, experts: impl Fn(usize) -> Vec<usize>) -> Entries {
    let mut entries = Entries::default();
    for token in 0..sizes.tokens {
        for expert in experts(token) {
            entries.token.push(token as u32);
            entries.expert.push(expert as u32);
        }
    }
    entries
}

/// Values, and gradients of all that is tracked, of one against another.
fn assert_alike(
    ours: &Inputs,
    theirs: &Inputs,
    [got, want]: [Tensor<2>; 2],
    trained: [bool; 3],
    share: f32,
) {
    assert_near("output", got.clone().inner(), want.clone().inner(), share);
    let probe = Random::new(7).normal(got.dims()).autodiff();
    let grads = (got * probe.clone()).sum().backward();
    let wanted = (want * probe).sum().backward();
    assert_near("x", grad(&ours.x, &grads), grad(&theirs.x, &wanted), share);
    let weights = (grad(&ours.weights, &grads), grad(&theirs.weights, &wanted));
    assert_near("weights", weights.0, weights.1, share);
    for (side, trained) in trained.into_iter().enumerate() {
        if trained {
            let [got, want] = [(ours, &grads), (theirs, &wanted)]
                .map(|(inputs, grads)| grad(&inputs.matrices[side], grads));
            assert_near("a matrix", got, want, share);
        }
    }
}

const SIZES: [Sizes; 3] = [
    Sizes {
        tokens: 40,
        experts: 5,
        d_model: 33,
        d_ff: 70,
    },
    Sizes {
        tokens: 150,
        experts: 3,
        d_model: 48,
        d_ff: 96,
    },
    // Panels in several rounds, the last of them narrow.
    Sizes {
        tokens: 30,
        experts: 2,
        d_model: 810,
        d_ff: 1570,
    },
];

#[test]
fn sparse_experts_are_the_obvious_loop() {
    let random = Random::new(21);
    for sizes in SIZES {
        for entries in [random_routing(&random, sizes), skewed_routing(sizes)] {
            let plain = Inputs::draw(&random, sizes, &entries);
            for inputs in [plain.clone(), plain.turned()] {
                for trained in [[false; 3], [true; 3], [false, true, false]] {
                    let (ours, theirs) = (inputs.tracked(trained), inputs.tracked(trained));
                    let outputs = [ours.output(&entries), theirs.obvious(&entries)];
                    assert_alike(&ours, &theirs, outputs, trained, 2e-5);
                }
                // Without a graph, where the pre-activations are not kept.
                let tracked = inputs.tracked([false; 3]).output(&entries).inner();
                let untracked = inputs.output(&entries).into_data();
                assert_eq!(untracked, tracked.into_data());
            }
        }
    }
}

#[test]
fn sparse_experts_in_bf16_are_those_numbers_in_f32() {
    let random = Random::new(22);
    for sizes in SIZES {
        for entries in [random_routing(&random, sizes), skewed_routing(sizes)] {
            let plain = Inputs::draw(&random, sizes, &entries);
            for inputs in [plain.clone(), plain.turned()] {
                let inputs = inputs.cast(DType::BF16);
                let (ours, theirs) = (inputs.tracked([false; 3]), inputs.tracked([false; 3]));
                let outputs = [ours.output(&entries), theirs.obvious(&entries)];
                assert_alike(&ours, &theirs, outputs, [false; 3], 1e-2);
            }
        }
    }
}

#[test]
fn what_the_kernel_does_not_take_is_composed() {
    let (random, sizes) = (Random::new(23), SIZES[0]);
    let entries = skewed_routing(sizes);
    let plain = Inputs::draw(&random, sizes, &entries);
    // Trained bf16, and formats that differ.
    let mut mixed = plain.clone();
    mixed.matrices[1] = mixed.matrices[1].clone().cast(DType::BF16);
    for (inputs, trained) in [(plain.cast(DType::BF16), [true; 3]), (mixed, [false; 3])] {
        let (ours, theirs) = (inputs.tracked(trained), inputs.tracked(trained));
        let outputs = [ours.output(&entries), theirs.obvious(&entries)];
        assert_alike(&ours, &theirs, outputs, trained, 1e-2);
    }
}

#[test]
fn few_tokens_no_entries_and_no_tokens_are_all_right() {
    let random = Random::new(24);
    for (tokens, routed) in [(1, true), (3, true), (4, false), (0, false)] {
        let sizes = Sizes { tokens, ..SIZES[0] };
        let entries = match routed {
            true => random_routing(&random, sizes),
            false => Entries::default(),
        };
        let plain = Inputs::draw(&random, sizes, &entries);
        for dtype in [DType::F32, DType::BF16] {
            for inputs in [plain.clone(), plain.clone().turned()] {
                let trained = [dtype == DType::F32; 3];
                let inputs = inputs.cast(dtype);
                let share = if dtype == DType::F32 { 2e-5 } else { 1e-2 };
                let ours = inputs.tracked(trained);
                if routed {
                    let theirs = inputs.tracked(trained);
                    let outputs = [ours.output(&entries), theirs.obvious(&entries)];
                    assert_alike(&ours, &theirs, outputs, trained, share);
                    continue;
                }
                let output = ours.output(&entries);
                let zeros = Tensor::<2>::zeros([tokens, sizes.d_model], &Device::flex());
                assert_eq!(
                    output.clone().inner().into_data(),
                    zeros.clone().into_data()
                );
                let grads = output.sum().backward();
                assert_eq!(grad(&ours.x, &grads).into_data(), zeros.into_data());
                assert_eq!(grad(&ours.weights, &grads).dims(), [0]);
                for matrix in ours.matrices.iter().filter(|_| trained[0]) {
                    assert_eq!(grad(matrix, &grads).abs().sum().into_scalar::<f32>(), 0.0);
                }
            }
        }
    }
}

#[test]
fn sparse_experts_do_not_depend_on_the_threads() {
    let random = Random::new(25);
    let sizes = Sizes {
        tokens: 300,
        ..SIZES[0]
    };
    for entries in [random_routing(&random, sizes), skewed_routing(sizes)] {
        let plain = Inputs::draw(&random, sizes, &entries);
        for dtype in [DType::F32, DType::BF16] {
            let inputs = plain.clone().cast(dtype);
            let trained = [dtype == DType::F32; 3];
            let numbers = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                pool.build().expect("threads").install(|| {
                    let inputs = inputs.tracked(trained);
                    let output = inputs.output(&entries);
                    let mut numbers = vec![output.clone().inner().into_data()];
                    let grads = output.square().sum().backward();
                    numbers.push(grad(&inputs.x, &grads).into_data());
                    numbers.push(grad(&inputs.weights, &grads).into_data());
                    let matrices = inputs.matrices.iter().filter(|_| trained[0]);
                    numbers.extend(matrices.map(|it| grad(it, &grads).into_data()));
                    numbers
                })
            };
            assert_eq!(numbers(1), numbers(2));
        }
    }
}

#[test]
fn a_graph_of_sparse_experts_may_be_read_twice() {
    let (random, sizes) = (Random::new(26), SIZES[1]);
    let entries = random_routing(&random, sizes);
    let inputs = Inputs::draw(&random, sizes, &entries).tracked([false; 3]);
    let output = inputs.output(&entries);
    let twice = output.clone() + output.clone();
    let (grads, doubled) = (
        inputs.output(&entries).sum().backward(),
        twice.sum().backward(),
    );
    let (once, twice) = (grad(&inputs.x, &grads) * 2.0, grad(&inputs.x, &doubled));
    assert_near("x", twice, once, 2e-5);
}

#[test]
fn gradients_of_sparse_experts_are_finite_differences() {
    let random = Random::new(27);
    let sizes = Sizes {
        tokens: 9,
        experts: 3,
        d_model: 5,
        d_ff: 7,
    };
    let entries = skewed_routing(sizes);
    let inputs = Inputs::draw(&random, sizes, &entries);
    let probe = random.normal([sizes.tokens, sizes.d_model]);
    let loss = |inputs: &Inputs| {
        let sum = (inputs.output(&entries) * probe.clone()).sum();
        f64::from(sum.into_scalar::<f32>())
    };
    let leaves = inputs.tracked([true; 3]);
    let grads = (leaves.output(&entries) * probe.clone().autodiff())
        .sum()
        .backward();
    // Along one direction for each input.
    let step = 1e-2;
    let assert_slope = |what: &str, slope: f64, moved: &dyn Fn(f64) -> Inputs| {
        let difference = (loss(&moved(step)) - loss(&moved(-step))) / (2.0 * step);
        let bound = 2e-3 * (1.0 + slope.abs());
        assert!(
            (slope - difference).abs() < bound,
            "{what}: {slope} {difference}"
        );
    };
    let along = |product: Tensor<1>| f64::from(product.into_scalar::<f32>());

    let way = random.normal(inputs.x.dims());
    let slope = along((grad(&leaves.x, &grads) * way.clone()).sum());
    assert_slope("x", slope, &|step| Inputs {
        x: inputs.x.clone() + way.clone() * step,
        ..inputs.clone()
    });
    let way = random.normal(inputs.weights.dims());
    let slope = along((grad(&leaves.weights, &grads) * way.clone()).sum());
    assert_slope("weights", slope, &|step| Inputs {
        weights: inputs.weights.clone() + way.clone() * step,
        ..inputs.clone()
    });
    for side in 0..3 {
        let way = random.normal(inputs.matrices[side].dims());
        let slope = along((grad(&leaves.matrices[side], &grads) * way.clone()).sum());
        assert_slope("a matrix", slope, &|step| {
            let mut moved = inputs.clone();
            moved.matrices[side] = inputs.matrices[side].clone() + way.clone() * step;
            moved
        });
    }
}
