use burn::tensor::{Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gumbel, StandardNormal};

/// Whether a router draws random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does: noise, jitter, random second experts. They are a function of this seed, of which the caller makes one per step and layer.
    Train {
        /// Of the draws.
        seed: u64,
    },
    /// It does not.
    Evaluate,
}

/// What numbers are drawn for. Each draws from a stream of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Draw {
    /// Of a router's input.
    Jitter = 1,
    /// Of logits.
    Noise = 2,
    /// Whether a further expert is used.
    Second = 3,
    /// Who stays when there are too many.
    Priority = 4,
}

fn rng(seed: u64, draw: Draw) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(draw as u64);
    rng
}

/// `count` numbers, uniform in `[0, 1)`.
pub(crate) fn uniform(seed: u64, draw: Draw, count: usize) -> Vec<f32> {
    let mut rng = rng(seed, draw);
    (0..count).map(|_| rng.random_range(0.0..1.0)).collect()
}

/// `count` numbers, normal with mean 0 and variance 1.
pub(crate) fn normal(seed: u64, count: usize) -> Vec<f32> {
    sample(rng(seed, Draw::Noise), StandardNormal, count)
}

/// `count` numbers `−ln(−ln u)`: the largest of `logit + gumbel` is a draw from the softmax of the logits.
pub(crate) fn gumbel(seed: u64, count: usize) -> Vec<f32> {
    let standard = Gumbel::new(0.0, 1.0).expect("a positive scale");
    sample(rng(seed, Draw::Noise), standard, count)
}

fn sample(rng: impl Rng, of: impl Distribution<f32>, count: usize) -> Vec<f32> {
    of.sample_iter(rng).take(count).collect()
}

/// `x [tokens, d_model]`, each entry times a number uniform in `1 ± amount` (Switch Transformers, appendix C); as it is while evaluating.
pub(crate) fn jittered(x: Tensor<2>, amount: f64, phase: Phase) -> Tensor<2> {
    let Phase::Train { seed } = phase else {
        return x;
    };
    if amount == 0.0 {
        return x;
    }
    let shape = x.dims();
    let factors = uniform(seed, Draw::Jitter, shape[0] * shape[1]);
    let factors = factors
        .into_iter()
        .map(|u| 1.0 + amount as f32 * (2.0 * u - 1.0));
    let factors = TensorData::new(factors.collect::<Vec<f32>>(), shape);
    let factors = Tensor::from_data(factors, &x.device());
    x * factors
}
