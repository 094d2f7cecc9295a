//! Every fused operation has the values and the gradients of the obvious composition of Burn's operations.

mod sparse;

use std::cell::Cell;
use std::f64::consts::TAU;

use burn::optim::{AdamWConfig, AdamWState, Optimizer};
use burn::tensor::{
    Bool, DType, Device, Gradients, Int, Tensor, TensorData, Tolerance, activation,
};
use moe_kernels::dropout::Mask;
use moe_kernels::{AdamW, AttentionShape, Dropout, Loras, MoeFfn, Observed};
use moe_kernels::{
    add_rms_norm, attend, attention, attention_bias, linear, linears, moe_ffn, rms_norm, rotate,
    swiglu, token_cross_entropy, token_gate,
};

/// Numbers that are the same in every run.
struct Random(Cell<u64>);

impl Random {
    fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Normally distributed (Box & Muller 1958).
    fn normal<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let number = || {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            (radius * (TAU * self.uniform()).cos()) as f32
        };
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| number()).collect();
        Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
    }

    /// In `[0, 1)` (SplitMix64, Steele et al. 2014).
    fn uniform(&self) -> f64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn tracked<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    x.clone().autodiff().require_grad()
}

fn assert_same<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>) {
    assert_near(what, got, want, 2e-5);
}

/// Ten times `share` of itself, or `share` of the largest number.
fn assert_near<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>, share: f32) {
    let (got, want) = (got.into_data(), want.into_data());
    assert_eq!(got.shape(), want.shape(), "{what}");
    let largest = want
        .iter::<f32>()
        .fold(0f32, |largest, x| largest.max(x.abs()));
    got.assert_approx_eq::<f32>(
        &want,
        Tolerance::rel_abs(10.0 * share, share * largest.max(1.0)),
    );
}

fn grad<const D: usize>(x: &Tensor<D>, grads: &Gradients) -> Tensor<D> {
    x.grad(grads).expect("a leaf of the operation")
}

#[test]
fn linear_is_burns_product_with_a_frozen_weight() {
    let random = Random::new(1);
    for [n, d_in, d_out] in [[1, 5, 3], [30, 40, 33], [100, 577, 70]] {
        let (x, weight, probe) = (
            random.normal([n, d_in]),
            random.normal([d_in, d_out]),
            random.normal([n, d_out]),
        );
        let (ours, burns) = (tracked(&x), tracked(&x));
        let out = linear(ours.clone(), weight.clone());
        let want = burns.clone().matmul(weight);
        assert_same("output", out.clone().inner(), want.clone().inner());
        let (grads, wanted) = (
            (out * probe.clone()).sum().backward(),
            (want * probe).sum().backward(),
        );
        assert_same("gradient", grad(&ours, &grads), grad(&burns, &wanted));
    }
}

#[test]
fn a_bf16_weight_meets_activations_that_are_rounded_too() {
    let random = Random::new(2);
    for [n, d_in, d_out] in [[1, 5, 3], [30, 40, 33], [100, 577, 70]] {
        let rounded = |x: Tensor<2>| x.cast(DType::BF16).cast(DType::F32);
        let (x, probe) = (
            rounded(random.normal([n, d_in])),
            rounded(random.normal([n, d_out])),
        );
        let plain = random.normal([d_in, d_out]).cast(DType::BF16);
        let turned = random.normal([d_out, d_in]).cast(DType::BF16).transpose();
        for weight in [plain, turned] {
            let (ours, burns) = (tracked(&x), tracked(&x));
            let out = linear(ours.clone(), weight.clone());
            let want = burns.clone().matmul(weight.cast(DType::F32));
            assert_same("output", out.clone().inner(), want.clone().inner());
            let (grads, wanted) = (
                (out * probe.clone()).sum().backward(),
                (want * probe.clone()).sum().backward(),
            );
            assert_same("gradient", grad(&ours, &grads), grad(&burns, &wanted));
        }
    }
}

/// Which of some outputs a loss reads.
const READ: [[bool; 3]; 4] = [
    [true, true, true],
    [true, false, false],
    [false, true, false],
    [false, true, true],
];

/// The outputs that are read, each with weights of its own.
fn loss<const D: usize>(outputs: &[Tensor<D>], probes: &[Tensor<D>], read: [bool; 3]) -> Tensor<1> {
    let terms = outputs.iter().zip(probes).zip(read);
    let terms = terms.filter(|(_, read)| *read);
    let sums = terms.map(|((output, probe), _)| (output.clone() * probe.clone()).sum());
    sums.reduce(|sum, term| sum + term).expect("one is read")
}

#[test]
fn three_products_of_one_input_are_burns() {
    let random = Random::new(3);
    for read in READ {
        let weights = [8, 5, 33].map(|d_out| random.normal([40, d_out]));
        let probes = weights
            .each_ref()
            .map(|weight| random.normal([2, 15, weight.dims()[1]]));
        let x = random.normal([2, 15, 40]);
        let (ours, burns) = (tracked(&x), tracked(&x));
        let outputs = linears(ours.clone(), weights.clone());
        let want = weights.map(|weight| burns.clone().matmul(weight.unsqueeze()));
        for (output, want) in outputs.iter().zip(&want) {
            assert_same("output", output.clone().inner(), want.clone().inner());
        }
        let grads = loss(&outputs, &probes, read).backward();
        let wanted = loss(&want, &probes, read).backward();
        assert_same("gradient", grad(&ours, &grads), grad(&burns, &wanted));
    }
}

#[test]
fn a_sum_and_its_norm_are_burns() {
    let random = Random::new(4);
    for read in READ {
        let [x, y, sum_probe, norm_probe] = [(); 4].map(|()| random.normal([2, 9, 50]));
        let (gamma, probes) = (random.normal([50]), [sum_probe, norm_probe]);
        let (ours, burns) = ([&x, &y].map(tracked), [&x, &y].map(tracked));
        let [x, y] = ours.clone();
        let (sum, normed) = add_rms_norm(x, y, gamma.clone(), 1e-5);
        let [x, y] = burns.clone();
        let want = x + y;
        let scale = (want.clone().square().mean_dim(2) + 1e-5).sqrt();
        let want_normed = want.clone() / scale * gamma.unsqueeze();
        assert_same("sum", sum.clone().inner(), want.clone().inner());
        assert_same("norm", normed.clone().inner(), want_normed.clone().inner());
        let grads = loss(&[sum, normed], &probes, read).backward();
        let wanted = loss(&[want, want_normed], &probes, read).backward();
        for (ours, burns) in ours.iter().zip(&burns) {
            assert_same("gradient", grad(ours, &grads), grad(burns, &wanted));
        }
    }
}

#[test]
fn the_gate_is_a_softmax_over_its_product() {
    let random = Random::new(5);
    for [tokens, d_model, experts] in [[1, 5, 1], [50, 40, 2], [100, 33, 17]] {
        let (x, weight) = (
            random.normal([tokens, d_model]),
            random.normal([d_model, experts]),
        );
        let probe = random.normal([tokens, experts]);
        let (ours, burns) = ([&x, &weight].map(tracked), [&x, &weight].map(tracked));
        let gate = |[x, weight]: [Tensor<2>; 2]| token_gate(x, weight);
        let (out, want) = (gate(ours.clone()), {
            let [x, weight] = burns.clone();
            activation::softmax(x.matmul(weight), 1)
        });
        assert_same("weights", out.clone().inner(), want.clone().inner());
        let grads = (out * probe.clone()).sum().backward();
        let wanted = (want * probe.clone()).sum().backward();
        for (ours, burns) in ours.iter().zip(&burns) {
            assert_same("gradient", grad(ours, &grads), grad(burns, &wanted));
        }
        // Below the first expert nobody asks.
        let alone = tracked(&weight);
        let grads = (token_gate(x, alone.clone()) * probe).sum().backward();
        assert_same("matrix", grad(&alone, &grads), grad(&burns[1], &wanted));
    }
}

#[test]
fn far_scores_leave_a_gate_open_to_one_expert() {
    let x = Tensor::from_data([[1e4f32], [-1e4]], &Device::flex());
    let weights = token_gate(x, Tensor::from_data([[1f32, -1.0]], &Device::flex()));
    let want = Tensor::<2>::from_data([[1f32, 0.0], [0.0, 1.0]], &Device::flex());
    assert_same("weights", weights, want);
}

#[test]
fn a_trained_weight_gets_its_gradient() {
    let random = Random::new(6);
    let (x, weight) = (random.normal([4, 3]), tracked(&random.normal([3, 2])));
    let grads = linear(x.clone(), weight.clone()).sum().backward();
    let want = x.transpose().matmul(Tensor::ones([4, 2], &Device::flex()));
    assert_same("weight", grad(&weight, &grads), want);
}

#[test]
fn rms_norm_is_its_formula() {
    let random = Random::new(7);
    for width in [3, 16, 50] {
        let (x, gamma, probe) = (
            random.normal([2, 7, width]),
            random.normal([width]),
            random.normal([2, 7, width]),
        );
        let (ours, burns) = (tracked(&x), tracked(&x));
        let out = rms_norm(ours.clone(), gamma.clone(), 1e-5);
        let scale = (burns.clone().square().mean_dim(2) + 1e-5).sqrt();
        let want = burns.clone() / scale * gamma.unsqueeze();
        assert_same("output", out.clone().inner(), want.clone().inner());
        let (grads, wanted) = (
            (out * probe.clone()).sum().backward(),
            (want * probe).sum().backward(),
        );
        assert_same("gradient", grad(&ours, &grads), grad(&burns, &wanted));
    }
}

#[test]
fn swiglu_is_silu_times_up() {
    let random = Random::new(8);
    let far = Tensor::<1>::from_data([0.0, -90.0, 90.0, -1e4, 1e4], &Device::flex());
    let near = random.normal([20_000]) * 5.0;
    let gate = Tensor::cat(vec![far, near], 0);
    let up = random.normal(gate.dims());
    let [ours, our_up, burns, burns_up] = [&gate, &up, &gate, &up].map(tracked);
    let out = swiglu(ours.clone(), our_up.clone());
    let want = activation::silu(burns.clone()) * burns_up.clone();
    assert_same("output", out.clone().inner(), want.clone().inner());
    let (grads, wanted) = (out.sum().backward(), want.sum().backward());
    assert_same("gate", grad(&ours, &grads), grad(&burns, &wanted));
    assert_same("up", grad(&our_up, &grads), grad(&burns_up, &wanted));
}

/// `[batch, seq]` with padding on the right of the first row and on the left of the second.
fn padded(batch: usize, seq: usize) -> Tensor<2, Bool> {
    let real: Vec<bool> = (0..batch * seq)
        .map(|index| match (index / seq, index % seq) {
            (0, position) => position < seq - seq / 3,
            (1, position) => position >= seq / 4,
            _ => true,
        })
        .collect();
    Tensor::from_data(TensorData::new(real, [batch, seq]), &Device::flex())
}

#[test]
fn attention_is_its_composition_at_every_real_token() {
    let random = Random::new(9);
    for (seq, heads, kv_heads, head_dim, window) in [
        (1, 2, 1, 4, None),
        (5, 4, 2, 6, None),
        (40, 6, 2, 16, None),
        (40, 2, 2, 8, Some(7)),
    ] {
        let batch = 3;
        let shape = AttentionShape {
            kv_heads,
            head_dim,
            window,
        };
        let real = padded(batch, seq);
        let width = kv_heads * head_dim;
        let inputs = [
            random.normal([batch, seq, heads * head_dim]),
            random.normal([batch, seq, width]),
            random.normal([batch, seq, width]),
        ];
        let angles = random.normal([batch, seq, head_dim / 2]);
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        let probe = random.normal([batch, seq, heads * head_dim])
            * real.clone().float().reshape([batch, seq, 1]);

        let ours = inputs.each_ref().map(tracked);
        let [query, key, value] = ours.clone();
        let float = real.clone().float();
        let out = attention(query, key, value, cos.clone(), sin.clone(), float, shape);

        let burns = inputs.each_ref().map(tracked);
        let [query, key, value] = burns.clone();
        let (cos, sin) = (cos.unsqueeze_dim(2), sin.unsqueeze_dim(2));
        let split = |x: Tensor<3>, heads| x.reshape([batch, seq, heads, head_dim]);
        let want = attend(
            rotate(split(query, heads), cos.clone(), sin.clone()),
            rotate(split(key, kv_heads), cos, sin).swap_dims(1, 2),
            split(value, kv_heads).swap_dims(1, 2),
            attention_bias(real.clone(), 0, window),
        );
        assert!(
            out.clone()
                .inner()
                .is_nan()
                .any()
                .bool_not()
                .into_scalar::<bool>()
        );
        let (out, want) = (out * probe.clone(), want * probe);
        assert_same("output", out.clone().inner(), want.clone().inner());
        let (grads, wanted) = (out.sum().backward(), want.sum().backward());
        for ((name, ours), burns) in ["query", "key", "value"].into_iter().zip(&ours).zip(&burns) {
            assert_same(name, grad(ours, &grads), grad(burns, &wanted));
        }
    }
}

/// One layer's mixture, with sizes that are no multiples of the kernel's.
struct Layer {
    x: Tensor<2>,
    weights: Tensor<2>,
    /// A and B on gate, up and down.
    loras: [[Tensor<2>; 2]; 3],
    base: [Tensor<2>; 3],
    shares: Tensor<2>,
    settings: MoeFfn,
}

const BATCH: usize = 3;
/// More than the 96 tokens whose sums are taken together.
const SEQ: usize = 110;
const D_MODEL: usize = 10;
const D_FF: usize = 37;
const RANK: usize = 3;

impl Layer {
    fn new(experts: usize, observed: Option<Observed>, dropout: Option<f64>) -> Self {
        let random = Random::new(10);
        let tokens = BATCH * SEQ;
        let codes = experts * RANK;
        let real = padded(BATCH, SEQ).float();
        let masks = |probability| Dropout {
            masks: (0..experts as u64)
                .map(|expert| [0, 1, 2].map(|side| Mask::new(10 * expert + side, probability)))
                .collect(),
        };
        Self {
            x: random.normal([tokens, D_MODEL]),
            weights: activation::softmax(random.normal([tokens, experts]), 1),
            loras: [[D_MODEL, D_FF], [D_MODEL, D_FF], [D_FF, D_MODEL]]
                .map(|[d_in, d_out]| [random.normal([d_in, codes]), random.normal([codes, d_out])]),
            base: [[D_MODEL, D_FF], [D_MODEL, D_FF], [D_FF, D_MODEL]]
                .map(|shape| random.normal(shape)),
            shares: real.clone() / real.sum_dim(1),
            settings: MoeFfn {
                experts,
                rank: RANK,
                scaling: 0.7,
                observed,
                dropout: dropout.map(masks),
            },
        }
    }

    /// Leaves in the order of [`NAMES`].
    fn leaves(&self) -> [Tensor<2>; 8] {
        let [gate, up, down] = &self.loras;
        [
            &self.x,
            &self.weights,
            &gate[0],
            &gate[1],
            &up[0],
            &up[1],
            &down[0],
            &down[1],
        ]
        .map(tracked)
    }

    fn fused(&self, leaves: &[Tensor<2>; 8]) -> (Tensor<2>, Option<Tensor<2>>) {
        let [x, weights, gate_a, gate_b, up_a, up_b, down_a, down_b] = leaves.clone();
        let loras = [(gate_a, gate_b), (up_a, up_b), (down_a, down_b)].map(|(a, b)| Loras { a, b });
        let settings = self.settings.clone();
        moe_ffn(
            x,
            weights,
            loras,
            self.base.clone(),
            self.shares.clone(),
            settings,
        )
    }

    /// Every expert as a network of its own.
    fn naive(&self, leaves: &[Tensor<2>; 8]) -> (Tensor<2>, Option<Tensor<2>>) {
        let expert = |index: usize, x: Tensor<2>| {
            let adapted = |x: Tensor<2>, side: usize| {
                let a = leaves[2 + 2 * side].clone().narrow(1, index * RANK, RANK);
                let b = leaves[3 + 2 * side].clone().narrow(0, index * RANK, RANK);
                let [rows, columns] = x.dims();
                let seen = match &self.settings.dropout {
                    None => x.clone(),
                    Some(dropout) => {
                        let factors = dropout.masks[index][side].factors(rows, columns);
                        let data = TensorData::new(factors, [rows, columns]);
                        x.clone() * Tensor::from_data(data, &Device::flex())
                    }
                };
                let base = self.base[side].clone().cast(DType::F32);
                x.matmul(base) + seen.matmul(a).matmul(b) * 0.7
            };
            let h = activation::silu(adapted(x.clone(), 0)) * adapted(x, 1);
            adapted(h, 2)
        };
        let x = &leaves[0];
        let output = (0..self.settings.experts)
            .map(|index| expert(index, x.clone()) * leaves[1].clone().narrow(1, index, 1))
            .reduce(|sum, z| sum + z);
        let pooled = self.settings.observed.map(|seen| {
            let x = if seen.detached {
                x.clone().detach()
            } else {
                x.clone()
            };
            let z = expert(seen.expert, x).reshape([BATCH, SEQ, D_MODEL]);
            let shares = self.shares.clone().reshape([BATCH, 1, SEQ]);
            shares.matmul(z).reshape([BATCH, D_MODEL])
        });
        (output.expect("an expert"), pooled)
    }
}

const NAMES: [&str; 8] = [
    "x", "weights", "gate A", "gate B", "up A", "up B", "down A", "down B",
];

#[test]
fn the_mixture_is_every_expert_by_itself_gradients_included() {
    check_mixture(DType::F32, 2e-5);
}

/// Activations and gradients are rounded on the way into the base's products, by up to 2⁻⁹ of themselves.
#[test]
fn so_it_is_on_a_bf16_base() {
    check_mixture(DType::BF16, 1e-2);
}

fn check_mixture(base: DType, share: f32) {
    let random = Random::new(11);
    let seen = |expert, detached| Some(Observed { expert, detached });
    for (experts, observed, dropout) in [
        (1, None, None),
        (2, None, None),
        (2, seen(0, false), None),
        (2, seen(0, true), None),
        (3, seen(2, true), Some(0.25)),
        (2, seen(1, false), Some(0.25)),
    ] {
        let mut layer = Layer::new(experts, observed, dropout);
        layer.base = layer.base.map(|weight| weight.cast(base));
        let (ours, naive) = (layer.leaves(), layer.leaves());
        let (probe, pooled_probe) = (
            random.normal([BATCH * SEQ, D_MODEL]),
            random.normal([BATCH, D_MODEL]),
        );
        let run = |(output, pooled): (Tensor<2>, Option<Tensor<2>>)| {
            let loss = (output.clone() * probe.clone()).sum();
            let loss = match &pooled {
                Some(pooled) => loss + (pooled.clone() * pooled_probe.clone()).sum(),
                None => loss,
            };
            (loss.backward(), output.inner(), pooled.map(Tensor::inner))
        };
        let (grads, output, pooled) = run(layer.fused(&ours));
        let (wanted, want, want_pooled) = run(layer.naive(&naive));
        assert_near("output", output, want, share);
        match (pooled, want_pooled) {
            (Some(pooled), Some(want)) => assert_near("pooled", pooled, want, share),
            (pooled, _) => assert!(pooled.is_none() && observed.is_none()),
        }
        for ((name, ours), naive) in NAMES.into_iter().zip(&ours).zip(&naive) {
            assert_near(name, grad(ours, &grads), grad(naive, &wanted), share);
        }
    }
}

#[test]
fn the_mixture_and_the_pooled_output_can_be_read_alone() {
    let random = Random::new(12);
    let seen = Observed {
        expert: 1,
        detached: false,
    };
    let layer = Layer::new(2, Some(seen), None);
    let probes = [
        random.normal([BATCH * SEQ, D_MODEL]),
        random.normal([BATCH, D_MODEL]),
    ];
    for read in READ {
        let (ours, naive) = (layer.leaves(), layer.leaves());
        let run = |(output, pooled): (Tensor<2>, Option<Tensor<2>>)| {
            loss(&[output, pooled.expect("observed")], &probes, read).backward()
        };
        let (grads, wanted) = (run(layer.fused(&ours)), run(layer.naive(&naive)));
        for ((name, ours), naive) in NAMES.into_iter().zip(&ours).zip(&naive) {
            // What the loss does not depend on has a zero or no gradient.
            let zeros = || ours.clone().inner().zeros_like();
            let got = ours.grad(&grads).unwrap_or_else(zeros);
            let want = naive.grad(&wanted).unwrap_or_else(zeros);
            assert_same(name, got, want);
        }
    }
}

/// Batches that nothing is kept of go through the network some rows at a time.
#[test]
fn a_large_batch_without_gradients_has_the_same_output() {
    let random = Random::new(13);
    let (batch, seq) = (5, 400);
    let layer = Layer::new(2, None, None);
    let mut large = layer.leaves().map(Tensor::inner);
    large[0] = random.normal([batch * seq, D_MODEL]);
    large[1] = activation::softmax(random.normal([batch * seq, 2]), 1);
    let layer = Layer {
        shares: Tensor::zeros([batch, seq], &Device::flex()),
        ..layer
    };
    let (output, _) = layer.fused(&large);
    let (want, _) = layer.fused(&large.each_ref().map(tracked));
    assert_eq!(output.into_data(), want.inner().into_data());
}

#[test]
fn nothing_is_asked_of_what_lies_below_the_first_expert() {
    let layer = Layer::new(
        2,
        Some(Observed {
            expert: 0,
            detached: true,
        }),
        None,
    );
    let mut leaves = layer.leaves();
    let whole = layer.fused(&leaves);
    let grads = (whole.0.sum() + whole.1.expect("observed").sum()).backward();
    let want = grad(&leaves[2], &grads);
    leaves[0] = layer.x.clone();
    let above = layer.fused(&leaves);
    let grads = (above.0.sum() + above.1.expect("observed").sum()).backward();
    assert_same("gate A", grad(&leaves[2], &grads), want);
}

#[test]
fn results_are_the_same_bit_for_bit_again() {
    let layer = Layer::new(
        2,
        Some(Observed {
            expert: 0,
            detached: true,
        }),
        Some(0.1),
    );
    let run = || {
        let leaves = layer.leaves();
        let (output, pooled) = layer.fused(&leaves);
        let grads = (output.clone().sum() + pooled.expect("observed").sum()).backward();
        let grads = leaves.each_ref().map(|leaf| grad(leaf, &grads).into_data());
        (output.into_data(), grads)
    };
    assert_eq!(run(), run());
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let random = Random::new(14);
    let layer = Layer::new(
        2,
        Some(Observed {
            expert: 0,
            detached: true,
        }),
        Some(0.1),
    );
    let (x, weight) = (random.normal([300, 600]), random.normal([600, 200]));
    let run = || {
        let leaves = layer.leaves();
        let (output, pooled) = layer.fused(&leaves);
        let grads = (output.clone().sum() + pooled.expect("observed").sum()).backward();
        let grads = leaves.each_ref().map(|leaf| grad(leaf, &grads).into_data());
        let large = linear(x.clone(), weight.clone()).into_data();
        (output.into_data(), grads, large)
    };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a thread pool").install(run)
    };
    let alone = with(1);
    for threads in [2, 3, 5] {
        assert_eq!(with(threads), alone, "{threads} threads");
    }
}

#[test]
fn the_loss_of_tokens_is_that_of_all_logits() {
    let random = Random::new(15);
    // More than one piece of the vocabulary, and one that is not whole.
    let [n, d_model, vocabulary] = [150, 48, 5000];
    let targets: Vec<usize> = (0..n).map(|row| row * 137 % vocabulary).collect();
    let places: Vec<i64> = targets.iter().map(|&target| target as i64).collect();
    let places = Tensor::<2, Int>::from_data(TensorData::new(places, [n, 1]), &Device::flex());
    let (hidden, probe) = (random.normal([n, d_model]), random.normal([n]));
    let plain = random.normal([d_model, vocabulary]);
    let turned = random.normal([vocabulary, d_model]).transpose();
    for weight in [plain, turned] {
        for (dtype, share) in [(DType::F32, 2e-5), (DType::BF16, 1e-2)] {
            let weight = weight.clone().cast(dtype);
            let (ours, burns) = (tracked(&hidden), tracked(&hidden));
            let losses = token_cross_entropy(ours.clone(), weight.clone(), &targets);
            let logits = burns.clone().matmul(weight.clone().cast(DType::F32));
            let want: Tensor<2> = activation::log_softmax(logits, 1).gather(1, places.clone());
            let want: Tensor<1> = want.neg().squeeze_dim(1);
            assert_near(
                "losses",
                losses.clone().inner(),
                want.clone().inner(),
                share,
            );
            // A weight that is trained goes through Burn's operations, some rows at a time.
            let trained =
                token_cross_entropy(hidden.clone().autodiff(), tracked(&weight), &targets);
            assert_near("composed", trained.inner(), want.clone().inner(), share);
            let untracked = token_cross_entropy(hidden.clone(), weight, &targets);
            untracked
                .into_data()
                .assert_eq(&losses.clone().inner().into_data(), true);
            let (grads, wanted) = (
                (losses * probe.clone().autodiff()).sum().backward(),
                (want * probe.clone().autodiff()).sum().backward(),
            );
            assert_near(
                "gradient",
                grad(&ours, &grads),
                grad(&burns, &wanted),
                share,
            );
        }
    }
}

#[test]
fn a_sure_prediction_costs_nothing_and_far_logits_stay_finite() {
    let vocabulary = 4096;
    let mut scores = vec![0.0; vocabulary];
    scores[3000] = 1e4;
    let weight = Tensor::from_data(TensorData::new(scores, [1, vocabulary]), &Device::flex());
    let hidden = Tensor::<2>::ones([2, 1], &Device::flex());
    let losses = token_cross_entropy(hidden, weight, &[3000, 1]).into_data();
    let losses: Vec<f32> = losses.iter().collect();
    assert!(
        losses[0].abs() < 1e-3 && (losses[1] - 1e4).abs() < 1.0,
        "{losses:?}"
    );
}

#[test]
fn adamw_is_burns_to_the_last_bit() {
    let random = Random::new(16);
    let (betas, epsilon, decay) = ([0.9, 0.999], 1e-8, 0.01);
    let burns = AdamWConfig::new()
        .with_epsilon(epsilon)
        .with_weight_decay(decay)
        .build();
    let ours = AdamW::new(betas, epsilon, decay);
    let start = random.normal([130, 257]);
    let (mut left, mut right) = ((start.clone(), None), (start, None));
    for step in 1..=5 {
        let (rate, gradient) = (1e-2 / f64::from(step), random.normal([130, 257]));
        left = ours.step(rate, left.0, gradient.clone(), left.1);
        right = burns.step(rate, right.0, gradient, right.1);
        let parts = |(parameter, state): &(Tensor<2>, Option<AdamWState<2>>)| {
            let momentum = &state.as_ref().expect("a state").momentum;
            assert_eq!(momentum.time, step as usize);
            [parameter, &momentum.moment_1, &momentum.moment_2].map(|x| x.clone().into_data())
        };
        assert_eq!(parts(&left), parts(&right), "step {step}");
    }
}
