use burn::tensor::{Device, Tensor, TensorData};
use moe_lora::router::Tokens;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Width of a token.
pub const D_MODEL: usize = 32;
/// What follows a token is one of these.
pub const CLASSES: usize = 32;
/// Kinds of tokens; the n-th is drawn in proportion to 1 / n.
const KINDS: usize = 32;
/// How much of a token is its own, beside its kind's.
const OWN: f32 = 0.5;
/// How sure it is what follows.
const SHARPNESS: f32 = 0.7;

/// A stream of tokens: each is near the centre of its kind, and what follows it depends on it in a way that is its kind's.
pub struct Stream {
    seed: u64,
    /// `[KINDS][D_MODEL]`.
    centres: Vec<Vec<f32>>,
    /// `[KINDS][CLASSES][D_MODEL]`.
    maps: Vec<Vec<Vec<f32>>>,
}

/// Some tokens and what follows each.
pub struct Batch {
    /// `[tokens, D_MODEL]`.
    pub x: Tensor<2>,
    /// `[tokens]`.
    pub targets: Vec<usize>,
}

impl Batch {
    /// As a router sees them.
    pub fn tokens(&self) -> Tokens {
        Tokens::new(self.targets.len())
    }
}

impl Stream {
    /// Kinds that this seed draws.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut vector = || normals(&mut rng, D_MODEL);
        Self {
            seed,
            centres: (0..KINDS).map(|_| vector()).collect(),
            maps: (0..KINDS)
                .map(|_| (0..CLASSES).map(|_| vector()).collect())
                .collect(),
        }
    }

    /// The tokens at a place of the stream.
    pub fn batch(&self, tokens: usize, place: u64, device: &Device) -> Batch {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(place.wrapping_add(1));
        let (mut x, mut targets) = (Vec::with_capacity(tokens * D_MODEL), Vec::new());
        let kinds: Vec<f32> = (1..=KINDS).map(|n| 1.0 / n as f32).collect();
        for _ in 0..tokens {
            let kind = drawn(&kinds, &mut rng);
            let own = normals(&mut rng, D_MODEL);
            let token: Vec<f32> = (self.centres[kind].iter())
                .zip(own)
                .map(|(centre, own)| centre + OWN * own)
                .collect();
            let odds: Vec<f32> = (self.maps[kind].iter())
                .map(|map| {
                    let product: f32 = map.iter().zip(&token).map(|(a, b)| a * b).sum();
                    (SHARPNESS * product / (D_MODEL as f32).sqrt() * 4.0).exp()
                })
                .collect();
            targets.push(drawn(&odds, &mut rng));
            x.extend(token);
        }
        Batch {
            x: Tensor::from_data(TensorData::new(x, [tokens, D_MODEL]), device),
            targets,
        }
    }
}

/// An index in proportion to the weights.
fn drawn(weights: &[f32], rng: &mut ChaCha8Rng) -> usize {
    let mut left = rng.random_range(0.0..weights.iter().sum::<f32>());
    let found = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    found.unwrap_or(weights.len() - 1)
}

/// Normal numbers of variance 1, by Box and Muller.
fn normals(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    let mut one = || {
        let radius = (-2.0 * rng.random_range(f32::MIN_POSITIVE..1.0).ln()).sqrt();
        radius * (std::f32::consts::TAU * rng.random_range(0.0..1.0f32)).cos()
    };
    (0..count).map(|_| one()).collect()
}
