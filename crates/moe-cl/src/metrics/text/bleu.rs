//! BLEU (Papineni et al. 2002) as `sacrebleu` computes it: tokens `13a`, smoothing `exp`.

use std::collections::HashMap;

use super::{
    ngrams::{in_common, ngrams},
    tokens::words_13a,
};

/// Longest n-gram.
const ORDER: usize = 4;

/// Matches and n-grams of each order, then the lengths of the answer and of the reference nearest to it: ten numbers.
pub(super) fn counts(prediction: &str, references: &[&str]) -> Vec<u64> {
    let answer = words_13a(prediction);
    let references: Vec<Vec<String>> = references.iter().map(|it| words_13a(it)).collect();
    let mut right = Vec::with_capacity(ORDER);
    let mut total = Vec::with_capacity(ORDER);
    for n in 1..=ORDER {
        let mut most: HashMap<&[String], usize> = HashMap::new();
        for reference in &references {
            for (gram, count) in ngrams(reference, n) {
                let most = most.entry(gram).or_insert(0);
                *most = count.max(*most);
            }
        }
        right.push(in_common(&ngrams(&answer, n), &most) as u64);
        total.push((answer.len() + 1).saturating_sub(n) as u64);
    }
    let length = answer.len();
    let lengths = references.iter().map(Vec::len);
    let nearest = lengths
        .min_by_key(|it| (it.abs_diff(length), *it))
        .unwrap_or(0);
    let lengths = [length as u64, nearest as u64];
    right.into_iter().chain(total).chain(lengths).collect()
}

/// The score of such counts, or of sums of them, in [0, 1]. Of one text the orders that it is too short for are left out
/// (`effective`).
pub(super) fn score(counts: &[u64], effective: bool) -> f64 {
    let (right, rest) = counts.split_at(ORDER);
    let (total, lengths) = rest.split_at(ORDER);
    if right.iter().all(|count| *count == 0) {
        return 0.0;
    }
    let mut halved = 1.0;
    let mut logarithms = Vec::with_capacity(ORDER);
    for (&right, &total) in right.iter().zip(total) {
        if total == 0 {
            break;
        }
        let right = match right {
            0 => {
                halved *= 2.0;
                1.0 / halved
            }
            _ => right as f64,
        };
        logarithms.push((right / total as f64).ln());
    }
    if !effective && logarithms.len() < ORDER {
        return 0.0;
    }
    let precision = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
    let (answer, reference) = (lengths[0] as f64, lengths[1] as f64);
    let brevity = if answer < reference {
        1.0 - reference / answer
    } else {
        0.0
    };
    (precision + brevity).exp()
}
