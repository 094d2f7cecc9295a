//! Rotary frequencies (RoFormer, arXiv 2104.09864) and how checkpoints stretch them.

use std::f64::consts::TAU;
use std::path::Path;

use super::ModelConfig;
use crate::error::{Error, Result};

/// How the rotary frequencies are changed for contexts longer than the pre-training ones.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// As they are.
    None,
    /// All frequencies are divided by `factor` (arXiv 2306.15595).
    Linear {
        /// The stretch, at least 1 in practice.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between blended.
    Llama3 {
        /// The stretch of long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are short.
        high_freq_factor: f64,
        /// Context of the pre-training, in tokens.
        original_max_position_embeddings: usize,
    },
    /// One divisor per frequency, `[head_dim / 2]`: the `rope_freqs.weight` of a GGUF file.
    Divisors(Vec<f64>),
}

impl ModelConfig {
    /// Rotary frequencies after scaling, `[head_dim / 2]`: position `p` turns pair `i` by
    /// `p · f[i]`, with `f[i] = rope_theta^(−2i / head_dim)` before scaling.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let pairs = self.head_dim / 2;
        let frequency = |i| {
            self.rope_theta
                .powf(-(2.0 * i as f64) / self.head_dim as f64)
        };
        (0..pairs)
            .map(|i| self.rope_scaling.apply(i, frequency(i)))
            .collect()
    }
}

impl RopeScaling {
    fn apply(&self, pair: usize, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Divisors(divisors) => frequency / divisors[pair],
            &Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let original = original_max_position_embeddings as f64;
                let wavelength = TAU / frequency;
                if wavelength < original / high_freq_factor {
                    frequency
                } else if wavelength > original / low_freq_factor {
                    frequency / factor
                } else {
                    let keep = (original / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - keep) * frequency / factor + keep * frequency
                }
            }
        }
    }

    /// Every number that is divided by must be positive, and the bands must not cross.
    pub(super) fn check(&self, head_dim: usize, origin: &Path) -> Result<()> {
        let positive = |key: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            let message = format!("must be a positive number, found {value}");
            Err(Error::config(origin, key, message))
        };
        match self {
            Self::None => Ok(()),
            Self::Linear { factor } => positive("factor", *factor),
            &Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("high_freq_factor", high_freq_factor)?;
                let original = original_max_position_embeddings as f64;
                positive("original_max_position_embeddings", original)?;
                if low_freq_factor < high_freq_factor {
                    return Ok(());
                }
                let message = format!(
                    "must be above low_freq_factor = {low_freq_factor}, found {high_freq_factor}"
                );
                Err(Error::config(origin, "high_freq_factor", message))
            }
            Self::Divisors(divisors) if divisors.len() != head_dim / 2 => Err(Error::config(
                origin,
                "rope_freqs.weight",
                format!(
                    "expected {} divisors for head_dim = {head_dim}, found {}",
                    head_dim / 2,
                    divisors.len()
                ),
            )),
            Self::Divisors(divisors) => divisors
                .iter()
                .try_for_each(|&divisor| positive("rope_freqs.weight", divisor)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::*;

    fn frequencies(scaling: RopeScaling) -> Vec<f64> {
        let mut config = tiny();
        (config.head_dim, config.rope_scaling) = (4, scaling);
        config.rope_frequencies()
    }

    #[test]
    fn frequencies_fall_from_one_by_powers_of_theta() {
        assert_eq!(frequencies(RopeScaling::None), [1.0, 0.01]);
        assert_eq!(
            frequencies(RopeScaling::Linear { factor: 4.0 }),
            [0.25, 0.0025]
        );
        let divisors = RopeScaling::Divisors(vec![1.0, 8.0]);
        assert_eq!(frequencies(divisors), [1.0, 0.00125]);
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        // Wavelengths 6.28 and 628 tokens.
        let scaled = |original| {
            frequencies(RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: original,
            })
        };
        assert_eq!(scaled(200), [1.0, 0.01 / 8.0]);
        assert_eq!(scaled(10_000), [1.0, 0.01]);
        // 1000 / 628.3 = 1.5915 lies (1.5915 − 1) / 3 of the way to "short".
        let keep = (1000.0 / (200.0 * std::f64::consts::PI) - 1.0) / 3.0;
        let blended = (1.0 - keep) * 0.01 / 8.0 + keep * 0.01;
        assert!((scaled(1000)[1] - blended).abs() < 1e-15);
    }

    #[test]
    fn crossed_bands_are_refused() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 4.0,
            high_freq_factor: 1.0,
            original_max_position_embeddings: 10,
        };
        assert!(scaling.check(4, Path::new("c.json")).is_err());
    }
}
