//! How evenly a router spreads its tokens: counts that add up over passes, and the figures that the papers report of them.

use serde::{Deserialize, Serialize};

use super::choices::values;
use super::{Dispatch, Tokens};

/// What routings add up to.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    tokens: u64,
    wanted: u64,
    load: Vec<u64>,
    importance: Vec<f64>,
    /// Sum over the tokens whose scores are known, and their number.
    entropy: (f64, u64),
    /// `[experts, experts]`, tokens that were at both.
    together: Vec<u64>,
}

/// How evenly tokens are spread over the experts of one router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalanceFigures {
    /// Tokens that were routed, without padding.
    pub tokens: u64,
    /// `[experts]`, tokens at each.
    pub load: Vec<u64>,
    /// `[experts]`, sums of the weights that tokens gave each (Shazeer et al. 2017, eq. 6).
    pub importance: Vec<f64>,
    /// Squared coefficient of variation of the load, dividing by n: 0 where it is even, experts − 1 where one has all.
    pub load_cv_squared: f64,
    /// The same of the importance.
    pub importance_cv_squared: f64,
    /// The largest load over the mean one.
    pub max_over_mean: f64,
    /// Share of the choices that found no place, in `[0, 1]`.
    pub dropped: f64,
    /// Mean entropy of a token's scores over all experts, in nats: 0 where it is sure, ln experts where it is not. None where the router
    /// does not look at tokens.
    pub entropy: Option<f64>,
    /// Experts without a token.
    pub dead: usize,
}

impl BalanceFigures {
    /// What is one number for all experts, by name.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let known = [
            ("load_cv_squared", self.load_cv_squared),
            ("importance_cv_squared", self.importance_cv_squared),
            ("max_over_mean", self.max_over_mean),
            ("dropped", self.dropped),
            ("dead", self.dead as f64),
        ];
        let entropy = self.entropy.map(|entropy| ("entropy", entropy));
        known.into_iter().chain(entropy)
    }
}

impl Balance {
    /// Of no token yet.
    pub fn new(experts: usize) -> Self {
        Self {
            tokens: 0,
            wanted: 0,
            load: vec![0; experts],
            importance: vec![0.0; experts],
            entropy: (0.0, 0),
            together: vec![0; experts * experts],
        }
    }

    /// Of one pass.
    pub fn of(dispatch: &Dispatch, tokens: &Tokens) -> Self {
        let mut balance = Self::new(dispatch.experts);
        balance.add(dispatch, tokens);
        balance
    }

    /// Adds what a router returned for these tokens. Reads weights and scores back.
    ///
    /// # Panics
    /// When it has another number of experts, or of tokens.
    pub fn add(&mut self, dispatch: &Dispatch, tokens: &Tokens) {
        let experts = self.load.len();
        assert_eq!(dispatch.experts, experts, "as many experts as before");
        assert_eq!(dispatch.tokens, tokens.count(), "the tokens of the pass");
        let real = || (0..tokens.count()).filter(|&token| tokens.is_real(token));
        self.tokens += real().count() as u64;
        self.wanted += dispatch.wanted.iter().copied().map(u64::from).sum::<u64>();
        for (entry, weight) in dispatch.entries.iter().zip(values(&dispatch.weights)) {
            self.load[entry.expert as usize] += 1;
            self.importance[entry.expert as usize] += f64::from(weight);
        }
        for of_token in dispatch
            .entries
            .chunk_by(|one, other| one.token == other.token)
        {
            for one in of_token {
                for other in of_token {
                    let place = one.expert as usize * experts + other.expert as usize;
                    self.together[place] += 1;
                }
            }
        }
        if let Some(scores) = &dispatch.scores {
            let scores = values(scores);
            for token in real() {
                self.entropy.0 += entropy(&scores[token * experts..][..experts]);
                self.entropy.1 += 1;
            }
        }
    }

    /// Adds the counts of another pass over the same router.
    ///
    /// # Panics
    /// When it has another number of experts.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.load.len(), other.load.len(), "the same experts");
        self.tokens += other.tokens;
        self.wanted += other.wanted;
        let add = |to: &mut Vec<u64>, from: &[u64]| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        };
        add(&mut self.load, &other.load);
        add(&mut self.together, &other.together);
        let importance = self.importance.iter_mut().zip(&other.importance);
        importance.for_each(|(to, from)| *to += from);
        self.entropy.0 += other.entropy.0;
        self.entropy.1 += other.entropy.1;
    }

    /// `[experts, experts]`: tokens that were at both experts; on the diagonal, at one.
    pub fn together(&self) -> &[u64] {
        &self.together
    }

    /// The figures of all that was added.
    pub fn figures(&self) -> BalanceFigures {
        let load: Vec<f64> = self.load.iter().map(|&load| load as f64).collect();
        let all: f64 = load.iter().sum();
        let largest = load.iter().copied().fold(0.0, f64::max);
        let over = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        BalanceFigures {
            tokens: self.tokens,
            load_cv_squared: cv_squared(&load),
            importance_cv_squared: cv_squared(&self.importance),
            max_over_mean: over(largest * load.len() as f64, all),
            dropped: over(self.wanted as f64 - all, self.wanted as f64),
            entropy: (self.entropy.1 > 0).then(|| self.entropy.0 / self.entropy.1 as f64),
            dead: self.load.iter().filter(|&&load| load == 0).count(),
            load: self.load.clone(),
            importance: self.importance.clone(),
        }
    }
}

/// `−Σ p ln p` of scores over their sum.
fn entropy(scores: &[f32]) -> f64 {
    let sum: f64 = scores.iter().map(|&score| f64::from(score)).sum();
    let part = |&score: &f32| match f64::from(score) / sum {
        p if p > 0.0 => -p * p.ln(),
        _ => 0.0,
    };
    scores.iter().map(part).sum()
}

/// Variance over squared mean, dividing by n; 0 where all are 0.
fn cv_squared(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let square = values.iter().map(|value| (value - mean).powi(2));
    let variance = square.sum::<f64>() / values.len() as f64;
    if mean > 0.0 {
        variance / mean.powi(2)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::super::{Variance, cv_squared as of_tensor};
    use super::*;
    use crate::router::Entry;

    /// Four tokens, one of them padding, at two of three experts each; one choice found no place.
    fn pass() -> (Dispatch, Tokens) {
        let entry = |token, expert, slot| Entry {
            token,
            expert,
            slot,
        };
        let device = Device::flex();
        let scores = [
            [0.5, 0.25, 0.25],
            [1.0, 0.0, 0.0],
            [0.2, 0.2, 0.2],
            [9.0, 9.0, 9.0],
        ];
        let dispatch = Dispatch {
            tokens: 4,
            experts: 3,
            entries: vec![
                entry(0, 0, 0),
                entry(0, 1, 0),
                entry(1, 0, 1),
                entry(2, 0, 2),
                entry(2, 1, 1),
            ],
            weights: Tensor::from_data([0.5, 0.5, 1.0, 0.75, 0.25], &device),
            scores: Some(Tensor::from_data(scores, &device)),
            wanted: vec![3, 3, 0],
            losses: Vec::new(),
        };
        (
            dispatch,
            Tokens::new(4).with_real(vec![true, true, true, false]),
        )
    }

    #[test]
    fn figures_worked_by_hand() {
        let (dispatch, tokens) = pass();
        let balance = Balance::of(&dispatch, &tokens);
        assert_eq!(balance.together(), [3, 2, 0, 2, 2, 0, 0, 0, 0]);
        let figures = balance.figures();
        assert_eq!((figures.tokens, figures.dead), (3, 1));
        assert_eq!(figures.load, [3, 2, 0]);
        assert_eq!(figures.importance, [2.25, 0.75, 0.0]);
        // Mean 5/3; squares 16/9 + 1/9 + 25/9 over 3, over 25/9.
        assert!((figures.load_cv_squared - 14.0 / 25.0).abs() < 1e-12);
        assert!((figures.max_over_mean - 9.0 / 5.0).abs() < 1e-12);
        assert!((figures.dropped - 1.0 / 6.0).abs() < 1e-12);
        // 1.5 ln 2, 0 and ln 3.
        let entropy = (1.5 * 2f64.ln() + 3f64.ln()) / 3.0;
        assert!((figures.entropy.unwrap() - entropy).abs() < 1e-6);
        let importance = Tensor::from_data([2.25f32, 0.75, 0.0], &Device::flex());
        let want: f32 = of_tensor(importance, Variance::Biased).into_scalar();
        assert!((figures.importance_cv_squared - f64::from(want)).abs() < 1e-6);
    }

    #[test]
    fn passes_add_up_whichever_way_they_are_added() {
        let (dispatch, tokens) = pass();
        let mut twice = Balance::of(&dispatch, &tokens);
        let once = twice.clone();
        twice.add(&dispatch, &tokens);
        let mut merged = once.clone();
        merged.merge(&once);
        assert_eq!(twice, merged);
        let (one, two) = (once.figures(), twice.figures());
        assert_eq!(two.load, [6, 4, 0]);
        assert_eq!(one.load_cv_squared, two.load_cv_squared);
        assert_eq!(one.entropy, two.entropy);
    }

    #[test]
    fn nothing_routed_is_nothing_and_no_division_by_it() {
        let figures = Balance::new(4).figures();
        assert_eq!((figures.load_cv_squared, figures.dropped), (0.0, 0.0));
        assert_eq!((figures.entropy, figures.dead), (None, 4));
    }
}
