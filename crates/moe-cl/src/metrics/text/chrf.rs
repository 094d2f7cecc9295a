//! chrF2 (Popović 2015) as `sacrebleu` computes it: characters without white space, n-grams of 1 to 6, recall twice as weighty.

use super::ngrams::{in_common, ngrams};

/// Longest n-gram.
const ORDER: usize = 6;
/// β², the weight of recall.
const RECALL: f64 = 4.0;

/// For each order the n-grams of the answer, of the reference, and those in common: eighteen numbers. Of several references the one
/// with the best score counts.
pub(super) fn counts(prediction: &str, references: &[&str]) -> Vec<u64> {
    let answer = characters(prediction);
    let against = |reference: &&str| {
        let reference = characters(reference);
        let orders = (1..=ORDER).flat_map(|n| {
            let size = |it: &[char]| (it.len() + 1).saturating_sub(n) as u64;
            let common = in_common(&ngrams(&answer, n), &ngrams(&reference, n)) as u64;
            // What no reference is long enough for is not counted.
            let answer = if size(&reference) > 0 {
                size(&answer)
            } else {
                0
            };
            [answer, size(&reference), common]
        });
        orders.collect::<Vec<u64>>()
    };
    let all = references.iter().map(against);
    let best = all.reduce(|best, next| {
        if score(&next) > score(&best) {
            next
        } else {
            best
        }
    });
    best.unwrap_or_else(|| vec![0; 3 * ORDER])
}

/// The score of such counts, or of sums of them, in [0, 1].
pub(super) fn score(counts: &[u64]) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for order in counts.chunks(3) {
        let &[answer, reference, common] = order else {
            continue;
        };
        if answer > 0 && reference > 0 {
            precision += common as f64 / answer as f64;
            recall += common as f64 / reference as f64;
            orders += 1.0;
        }
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    (1.0 + RECALL) * precision * recall / (RECALL * precision + recall)
}

fn characters(text: &str) -> Vec<char> {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
