//! What two models make of the same random tokens.

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::generate::{Side, pad};
use crate::model::Decoder;

/// Texts of the probe.
const TEXTS: usize = 4;
/// Tokens of each.
const TOKENS: usize = 32;

/// The logits of a model at random tokens, drawn evenly from its vocabulary.
pub struct Probe {
    /// `[TEXTS · TOKENS, vocab_size]`.
    logits: Vec<f32>,
    perplexity: f64,
}

/// How a model's answer to the probe differs from another's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Tokens that were looked at.
    pub tokens: usize,
    /// Largest change of a logit.
    pub logit: f32,
    /// Largest logit before, in size.
    pub largest: f32,
    /// Perplexity of the tokens before and after.
    pub perplexity: [f64; 2],
}

impl Probe {
    /// What `model` makes of the tokens that `seed` draws.
    pub fn of(model: &Decoder, seed: u64) -> Self {
        let vocab = model.config().vocab_size as u32;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = || (0..TOKENS).map(|_| rng.random_range(0..vocab)).collect();
        let texts: Vec<Vec<u32>> = (0..TEXTS).map(|_| text()).collect();
        let device: Device = model.device();
        let (tokens, real) = pad(&texts, 0, Side::Right, &device);
        let hidden = model.forward(tokens, real);
        let [batch, seq, d_model] = hidden.dims();
        let next = hidden.clone().narrow(1, 0, seq - 1);
        let next = next.reshape([batch * (seq - 1), d_model]);
        let follow = texts.iter().flat_map(|text| &text[1..]);
        let follow: Vec<usize> = follow.map(|&token| token as usize).collect();
        let mean = model.log_probabilities(next, &follow).mean();
        let logits = model.logits(hidden.reshape([batch * seq, d_model]));
        Self {
            logits: logits.into_data().iter::<f32>().collect(),
            perplexity: (-f64::from(mean.into_scalar::<f32>())).exp(),
        }
    }

    /// How `other`, of the same vocabulary and seed, differs from this.
    pub fn change(&self, other: &Self) -> Change {
        let largest = |numbers: &mut dyn Iterator<Item = f32>| numbers.fold(0.0, f32::max);
        let both = self.logits.iter().zip(&other.logits);
        Change {
            tokens: TEXTS * TOKENS,
            logit: largest(&mut both.map(|(was, is)| (was - is).abs())),
            largest: largest(&mut self.logits.iter().map(|logit| logit.abs())),
            perplexity: [self.perplexity, other.perplexity],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::tiny;

    #[test]
    fn a_model_does_not_differ_from_itself_and_has_the_perplexity_of_its_logits() {
        let model = Decoder::random(&tiny(), 1, &Device::flex());
        let (probe, other) = (Probe::of(&model, 5), Probe::of(&model, 6));
        let same = probe.change(&Probe::of(&model, 5));
        assert_eq!((same.logit, same.tokens), (0.0, 128));
        assert_eq!(same.perplexity[0], same.perplexity[1]);
        assert!(same.largest > 0.0 && probe.change(&other).logit > 0.0);
        // Random weights on random tokens know nothing: about the size of the vocabulary.
        assert!((10.0..60.0).contains(&same.perplexity[0]), "{same:?}");
    }
}
