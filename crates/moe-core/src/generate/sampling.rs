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
    /// A temperature that is neither 0 nor in [1e-6, 1e6], a probability outside (0, 1], `top_k` 0, a penalty outside [0.01, 100], or a
    /// number that is none. (Beyond these bounds logits leave the range of f32.)
    pub fn check(&self) -> Result<()> {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        let refuse = |name, value: String, rule| Err(Error::Sampling { name, value, rule });
        if self.temperature != 0.0 && !(1e-6..=1e6).contains(&self.temperature) {
            let rule = "0 (always the most likely token), or a number from 1e-6 to 1e6";
            return refuse("temperature", self.temperature.to_string(), rule);
        }
        if self.top_k == Some(0) {
            return refuse("top_k", "0".into(), "at least 1");
        }
        for (name, value) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if let Some(value) = value.filter(|value| !share(*value)) {
                return refuse(name, value.to_string(), "above 0 and at most 1");
            }
        }
        let penalty = self.repetition_penalty;
        match penalty.filter(|it| !(0.01..=100.0).contains(it)) {
            Some(value) => refuse(
                "repetition_penalty",
                value.to_string(),
                "a number from 0.01 to 100",
            ),
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

/// Divides by `temperature` (> 0).
pub fn temperature(logits: &mut [f32], temperature: f64) {
    for logit in logits {
        *logit /= temperature as f32;
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
            *logit *= match *logit < 0.0 {
                true => penalty as f32,
                false => 1.0 / penalty as f32,
            };
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

    #[test]
    fn what_is_no_choice_is_refused_by_name() {
        type Change = fn(&mut Sampling);
        let with = |change: Change| {
            let mut sampling = Sampling::greedy();
            change(&mut sampling);
            sampling.check()
        };
        let refused: [(&str, Change); 12] = [
            ("temperature", |it| it.temperature = -1.0),
            ("temperature", |it| it.temperature = f64::NAN),
            ("temperature", |it| it.temperature = f64::INFINITY),
            // 0 as f32.
            ("temperature", |it| it.temperature = 1e-50),
            ("top_k", |it| it.top_k = Some(0)),
            ("top_p", |it| it.top_p = Some(0.0)),
            ("top_p", |it| it.top_p = Some(1.5)),
            ("min_p", |it| it.min_p = Some(f64::NAN)),
            ("repetition_penalty", |it| it.repetition_penalty = Some(0.0)),
            ("repetition_penalty", |it| {
                it.repetition_penalty = Some(1e-50)
            }),
            ("repetition_penalty", |it| {
                it.repetition_penalty = Some(1e50)
            }),
            ("repetition_penalty", |it| {
                it.repetition_penalty = Some(f64::NAN)
            }),
        ];
        for (name, change) in refused {
            let message = with(change).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        let accepted: [Change; 4] = [
            |it| it.temperature = 1e-6,
            |it| it.top_p = Some(1.0),
            |it| it.min_p = Some(1e-50),
            |it| it.repetition_penalty = Some(0.01),
        ];
        for change in accepted {
            assert!(with(change).is_ok());
        }
    }

    #[test]
    fn what_is_accepted_leaves_a_token_to_draw() {
        for temperature in [1e-6, 1e6] {
            let sampling = Sampling {
                temperature,
                min_p: Some(1e-50),
                top_p: Some(1e-50),
                repetition_penalty: Some(100.0),
                ..Sampling::greedy()
            };
            let mut logits = vec![-3e4, 3e4, 0.0];
            penalise_repetition(&mut logits, &[0], 100.0);
            sampling.filter(&mut logits);
            let probabilities = softmax(&logits);
            assert!(
                probabilities.iter().all(|it| it.is_finite()),
                "{probabilities:?}"
            );
            assert_eq!(argmax(&probabilities), 1);
        }
    }
}
