//! The baseline that every table has: TF-IDF and multinomial logistic regression, a model per task, told the task.

use std::collections::{BTreeMap, HashMap};

/// Passes of accelerated gradient descent over all texts.
const STEPS: usize = 300;

/// Number of texts from which on a term counts only where two of them have it: the others are many and say nothing.
const MANY: usize = 1000;

/// A trained classifier.
pub struct Linear {
    vocabulary: HashMap<String, usize>,
    /// Inverse document frequency per term.
    idf: Vec<f64>,
    /// `[terms + 1][classes]`, the last row being the bias.
    weights: Vec<f64>,
    classes: usize,
}

/// Terms of a text with their weights.
type Sparse = Vec<(usize, f64)>;

impl Linear {
    /// Learns `labels` (classes below `classes`) from `texts`; `c` is the inverse strength of the L2 penalty, scikit-learn's `C`.
    ///
    /// # Panics
    /// When there are not as many labels as texts, or none.
    pub fn learn(texts: &[&str], labels: &[usize], classes: usize, c: f64) -> Self {
        assert_eq!(texts.len(), labels.len(), "a label for every text");
        assert!(!texts.is_empty(), "something to learn from");
        let n = texts.len() as f64;
        let mut documents: BTreeMap<String, usize> = BTreeMap::new();
        for text in texts {
            let mut terms = terms(text);
            terms.sort_unstable();
            terms.dedup();
            for term in terms {
                *documents.entry(term).or_default() += 1;
            }
        }
        documents.retain(|_, count| *count > 1 || texts.len() < MANY);
        let idf = documents
            .values()
            .map(|&count| ((1.0 + n) / (1.0 + count as f64)).ln() + 1.0)
            .collect();
        let mut model = Self {
            weights: vec![0.0; (documents.len() + 1) * classes],
            vocabulary: documents.into_keys().zip(0..).collect(),
            idf,
            classes,
        };
        let rows: Vec<Sparse> = texts.iter().map(|text| model.features(text)).collect();
        model.descend(&rows, labels, c);
        model
    }

    /// The most probable class.
    pub fn predict(&self, text: &str) -> usize {
        let probabilities = self.probabilities(&self.features(text), &self.weights);
        let larger = |best: usize, class: usize| {
            if probabilities[class] > probabilities[best] {
                class
            } else {
                best
            }
        };
        (0..self.classes).reduce(larger).unwrap_or(0)
    }

    /// Parameters of the model.
    pub fn parameters(&self) -> usize {
        self.weights.len()
    }

    /// TF-IDF of the known terms with length one, and the bias's constant.
    fn features(&self, text: &str) -> Sparse {
        let mut counts: HashMap<usize, f64> = HashMap::new();
        for term in terms(text) {
            if let Some(&index) = self.vocabulary.get(&term) {
                *counts.entry(index).or_default() += self.idf[index];
            }
        }
        let length = counts
            .values()
            .map(|value| value * value)
            .sum::<f64>()
            .sqrt();
        let mut row: Sparse = counts
            .into_iter()
            .map(|(index, value)| (index, value / length.max(1e-12)))
            .collect();
        // The order of a map is random; sums must not be.
        row.sort_unstable_by_key(|(index, _)| *index);
        row.push((self.idf.len(), 1.0));
        row
    }

    fn probabilities(&self, row: &Sparse, weights: &[f64]) -> Vec<f64> {
        let mut logits = vec![0.0; self.classes];
        for (term, value) in row {
            let weights = &weights[term * self.classes..(term + 1) * self.classes];
            for (logit, weight) in logits.iter_mut().zip(weights) {
                *logit += value * weight;
            }
        }
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        logits
            .iter_mut()
            .for_each(|logit| *logit = (*logit - most).exp());
        let sum: f64 = logits.iter().sum();
        logits.iter_mut().for_each(|logit| *logit /= sum);
        logits
    }

    /// Minimises `Σ cross-entropy + ‖W‖² / 2c`, the bias not penalised, by Nesterov's accelerated gradient.
    fn descend(&mut self, rows: &[Sparse], labels: &[usize], c: f64) {
        // A row has squared length 2 with its bias, and the softmax curves by at most one half.
        let step = 1.0 / (rows.len() as f64 + 1.0 / c);
        let mut previous = self.weights.clone();
        let bias = self.idf.len() * self.classes;
        for round in 0..STEPS {
            let momentum = round as f64 / (round as f64 + 3.0);
            let ahead: Vec<f64> = self
                .weights
                .iter()
                .zip(&previous)
                .map(|(now, before)| now + momentum * (now - before))
                .collect();
            let mut gradient: Vec<f64> = ahead
                .iter()
                .enumerate()
                .map(|(index, weight)| if index < bias { weight / c } else { 0.0 })
                .collect();
            for (row, &label) in rows.iter().zip(labels) {
                let mut error = self.probabilities(row, &ahead);
                error[label] -= 1.0;
                for (term, value) in row {
                    let gradient = &mut gradient[term * self.classes..(term + 1) * self.classes];
                    for (slope, error) in gradient.iter_mut().zip(&error) {
                        *slope += value * error;
                    }
                }
            }
            let moved = ahead
                .iter()
                .zip(&gradient)
                .map(|(weight, slope)| weight - step * slope)
                .collect();
            previous = std::mem::replace(&mut self.weights, moved);
        }
    }
}

/// Words of two letters or more in lower case, and pairs of neighbours.
fn terms(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| word.chars().nth(1).is_some())
        .collect();
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    words
        .iter()
        .map(|word| (*word).to_owned())
        .chain(pairs)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_decide_are_learnt() {
        let texts = ["good film", "a good day", "bad film", "a bad day"];
        let model = Linear::learn(&texts, &[0, 0, 1, 1], 2, 1.0);
        assert_eq!(model.predict("what a good thing"), 0);
        assert_eq!(model.predict("such bad luck"), 1);
    }

    #[test]
    fn training_is_the_same_each_time() {
        let texts = ["one two three", "four five six", "seven eight"];
        let of = || Linear::learn(&texts, &[0, 1, 2], 3, 1.0).weights;
        assert_eq!(of(), of());
    }

    #[test]
    fn terms_are_words_and_pairs_of_words() {
        assert_eq!(terms("A Good, day!"), ["good", "day", "good day"]);
    }
}
