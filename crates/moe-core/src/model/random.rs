use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::load::assemble;
use super::{BaseDtype, Decoder};
use crate::config::ModelConfig;

impl Decoder {
    /// A decoder of random weights, the same for the same seed: for tests, benchmarks and
    /// measurements that need a shape rather than a language model.
    ///
    /// Matrices are uniform with variance `1 / d_in`, so that activations neither vanish nor grow;
    /// norms are near one and biases near zero.
    pub fn random(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let draw = |name: &str, shape: &[usize]| {
            let (centre, spread) = match shape {
                [_, d_in] => (0.0, (3.0 / *d_in as f32).sqrt()),
                _ if name.ends_with("bias") => (0.0, 0.1),
                _ => (1.0, 0.1),
            };
            Ok((0..shape.iter().product())
                .map(|_| centre + rng.random_range(-spread..=spread))
                .collect())
        };
        assemble(config, BaseDtype::F32, draw, device).expect("drawing numbers cannot fail")
    }
}
