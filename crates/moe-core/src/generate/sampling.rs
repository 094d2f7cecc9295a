//! Filters on the logits of one position, in the order Hugging Face's `generate` applies them:
//! repetition penalty, temperature, top-k, top-p, min-p. A filtered logit is −∞.

use rand::{Rng, RngExt};

use crate::error::{Error, Result};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 means greedy, the largest logit, whatever the other settings
    /// but the repetition penalty.
    pub temperature: f64,
    /// Only the `k` largest logits stay.
    pub top_k: Option<usize>,
    /// Only the smallest set of most likely tokens whose probability reaches `p` stays.
    pub top_p: Option<f64>,
    /// Only tokens at least `p` times as likely as the likeliest stay.
    pub min_p: Option<f64>,
    /// Logits of tokens already in the sequence are divided by it when positive and multiplied
    /// by it when negative.
    pub repetition_penalty: Option<f64>,
    /// Draws are a function of this seed, the row in the batch and the step.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self::greedy()
    }
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            seed: 0,
        }
    }

    /// Refuses what is no choice at all.
    ///
    /// # Errors
    ///
    /// A temperature below 0, a probability outside (0, 1], `top_k` 0, a penalty that is not above 0, or a number that is none, or is
    /// 0 or infinite in the f32 that logits are computed in.
    pub fn check(&self) -> Result<()> {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        let refuse = |name, value: String, rule| Err(Error::Sampling { name, value, rule });
        // A number that f32 takes for 0 would turn every logit into one that is none.
        let above_zero = |value: f64| (value as f32).is_finite() && value as f32 > 0.0;
        if self.temperature != 0.0 && !above_zero(self.temperature) {
            let rule = "0 (always the most likely token), or a number above 0 that f32 can hold";
            return refuse("temperature", format!("{:?}", self.temperature), rule);
        }
        if self.top_k == Some(0) {
            return refuse("top_k", "0".into(), "at least 1");
        }
        for (name, value) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if let Some(value) = value.filter(|value| !share(*value)) {
                return refuse(name, format!("{value:?}"), "above 0 and at most 1");
            }
        }
        // Logits are multiplied by it or by what it divides 1 into.
        let usable = |value: f64| above_zero(value) && above_zero(1.0 / value);
        match self.repetition_penalty.filter(|it| !usable(*it)) {
            Some(value) => {
                let rule = "a number above 0 that f32 can hold";
                refuse("repetition_penalty", format!("{value:?}"), rule)
            }
            None => Ok(()),
        }
    }

    /// The next token for `logits [vocab]` after the tokens `history`.
    ///
    /// # Panics
    ///
    /// When `logits` is empty.
    pub fn choose(&self, mut logits: Vec<f32>, history: &[u32], rng: &mut impl Rng) -> u32 {
        if let Some(penalty) = self.repetition_penalty {
            penalise_repetition(&mut logits, history, penalty);
        }
        if self.temperature == 0.0 {
            return argmax(&logits);
        }
        self.filter(&mut logits);
        draw(&softmax(&logits), rng)
    }

    /// Temperature, then top-k, top-p and min-p, in place.
    pub fn filter(&self, logits: &mut [f32]) {
        temperature(logits, self.temperature);
        if let Some(k) = self.top_k {
            top_k(logits, k);
        }
        if let Some(p) = self.top_p {
            top_p(logits, p);
        }
        if let Some(p) = self.min_p {
            min_p(logits, p);
        }
    }
}

/// Index of the largest value, the first of equals.
///
/// # Panics
///
/// When `logits` is empty.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = index;
        }
    }
    best as u32
}

/// Divides by `temperature` (> 0). Where a quotient is too large for f32, the largest logit is taken off all first, which changes no
/// probability.
pub fn temperature(logits: &mut [f32], temperature: f64) {
    let temperature = temperature as f32;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let overflows = |logit: &f32| logit.is_finite() && !(logit / temperature).is_finite();
    let shift = match logits.iter().any(overflows) {
        true => largest,
        false => 0.0,
    };
    for logit in logits {
        *logit = (*logit - shift) / temperature;
    }
}

/// Keeps the `k` largest; those equal to the `k`-th stay too. `k = 0` is read as 1.
pub fn top_k(logits: &mut [f32], k: usize) {
    let k = k.clamp(1, logits.len());
    let mut sorted = logits.to_vec();
    let (_, threshold, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let threshold = *threshold;
    keep(logits, |logit| logit >= threshold);
}

/// Nucleus sampling (Holtzman et al. 2020): keeps the most likely tokens whose probabilities sum
/// to `p` or just above, and never fewer than one.
pub fn top_p(logits: &mut [f32], p: f64) {
    let probabilities = softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    // From the least likely up: a token goes while what is summed so far stays within 1 − p.
    let mut sum = 0.0;
    for &index in &order[..order.len() - 1] {
        sum += f64::from(probabilities[index]);
        if sum > 1.0 - p {
            break;
        }
        logits[index] = f32::NEG_INFINITY;
    }
}

/// Keeps tokens whose probability is at least `p` times the largest one (Nguyen et al. 2024).
pub fn min_p(logits: &mut [f32], p: f64) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let threshold = largest + (p as f32).ln();
    keep(logits, |logit| logit >= threshold);
}

/// Keskar et al. 2019 (CTRL): makes every token of `history` less likely by `penalty` (> 1).
pub fn penalise_repetition(logits: &mut [f32], history: &[u32], penalty: f64) {
    let mut seen: Vec<u32> = history.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        if let Some(logit) = logits.get_mut(token as usize) {
            let factor = match *logit < 0.0 {
                true => penalty as f32,
                false => 1.0 / penalty as f32,
            };
            // A product beyond f32 would be the only token, or none.
            *logit = (*logit * factor).clamp(f32::MIN, f32::MAX);
        }
    }
}

/// Probabilities of `logits`; −∞ becomes exactly 0.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

fn draw(probabilities: &[f32], rng: &mut impl Rng) -> u32 {
    let mut left: f32 = rng.random();
    for (index, probability) in probabilities.iter().enumerate() {
        left -= probability;
        if left < 0.0 {
            return index as u32;
        }
    }
    // Rounding left a remainder.
    argmax(probabilities)
}

fn keep(logits: &mut [f32], stays: impl Fn(f32) -> bool) {
    for logit in logits {
        if !stays(*logit) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, -2.0, 2.5];

    fn kept(logits: &[f32]) -> Vec<usize> {
        (0..logits.len())
            .filter(|i| logits[*i].is_finite())
            .collect()
    }

    #[test]
    fn top_k_keeps_the_k_largest() {
        let mut logits = LOGITS;
        top_k(&mut logits, 2);
        assert_eq!(kept(&logits), [1, 3]);
    }

    #[test]
    fn top_p_reaches_p_and_keeps_at_least_one() {
        let mut logits = LOGITS;
        top_p(&mut logits, 0.6);
        assert_eq!(kept(&logits), [1, 3]);
        top_p(&mut logits, 0.01);
        assert_eq!(kept(&logits), [1]);
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        let mut logits = LOGITS;
        min_p(&mut logits, 0.5);
        assert_eq!(kept(&logits), [1, 3]);
    }

    #[test]
    fn a_repeated_token_becomes_less_likely_whatever_its_sign() {
        let mut logits = LOGITS;
        penalise_repetition(&mut logits, &[2, 1, 1], 2.0);
        assert_eq!(logits, [1.0, 1.5, -4.0, 2.5]);
    }

    #[test]
    fn what_is_no_choice_in_f32_is_refused_by_its_name() {
        let greedy = Sampling::greedy;
        greedy().check().unwrap();
        for temperature in [f64::NAN, f64::INFINITY, -1.0, -0.5e-50, 1e-50, 1e39] {
            let message = Sampling {
                temperature,
                ..greedy()
            }
            .check()
            .unwrap_err()
            .to_string();
            assert!(message.contains("`temperature`"), "{message}");
        }
        for penalty in [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e-50, 1e-39, 1e39] {
            let sampling = Sampling {
                repetition_penalty: Some(penalty),
                ..greedy()
            };
            let message = sampling.check().unwrap_err().to_string();
            assert!(message.contains("`repetition_penalty`"), "{message}");
        }
        for share in [f64::NAN, 0.0, -0.1, 1.1] {
            let message = Sampling {
                top_p: Some(share),
                ..greedy()
            }
            .check()
            .unwrap_err();
            assert!(message.to_string().contains("`top_p`"), "{message}");
            let message = Sampling {
                min_p: Some(share),
                ..greedy()
            }
            .check()
            .unwrap_err();
            assert!(message.to_string().contains("`min_p`"), "{message}");
        }
        let message = Sampling {
            top_k: Some(0),
            ..greedy()
        }
        .check()
        .unwrap_err();
        assert!(message.to_string().contains("`top_k`"), "{message}");
    }

    #[test]
    fn every_choice_that_passes_the_check_is_among_the_tokens_and_follows_the_logits() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for temperature in [0.0, -0.0, 1e-45, 1e-38, 1e-6, 1.0, 1e38] {
            for penalty in [None, Some(1e-37), Some(1.0), Some(1e37)] {
                let sampling = Sampling {
                    temperature,
                    repetition_penalty: penalty,
                    min_p: Some(1e-50),
                    top_p: Some(1.0),
                    ..Sampling::greedy()
                };
                sampling.check().unwrap();
                let history: &[u32] = if penalty.is_some() {
                    &[0, 1, 2, 3]
                } else {
                    &[]
                };
                let mut logits = LOGITS.to_vec();
                if let Some(penalty) = penalty {
                    penalise_repetition(&mut logits, history, penalty);
                }
                if temperature != 0.0 {
                    sampling.filter(&mut logits);
                }
                let probabilities = softmax(&logits);
                assert!(
                    (probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5,
                    "{sampling:?}: {probabilities:?}"
                );
                let chosen = sampling.choose(LOGITS.to_vec(), history, &mut rng);
                assert!(probabilities[chosen as usize] > 0.0, "{sampling:?}");
                if temperature < 1e-5 && penalty.is_none() {
                    assert_eq!(
                        chosen, 1,
                        "next to no temperature is the argmax: {sampling:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn zero_temperature_is_the_argmax() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(Sampling::greedy().choose(LOGITS.to_vec(), &[], &mut rng), 1);
    }

    #[test]
    fn draws_follow_the_filtered_probabilities() {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: Some(2),
            ..Sampling::greedy()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let first = (0..4000)
            .filter(|_| sampling.choose(LOGITS.to_vec(), &[], &mut rng) == 1)
            .count();
        // e³ / (e³ + e^2.5) = 0.6225
        assert!((first as f64 / 4000.0 - 0.6225).abs() < 0.03, "{first}");
    }
}
