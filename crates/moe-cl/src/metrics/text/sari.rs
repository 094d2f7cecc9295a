//! SARI (Xu et al. 2016, "Optimizing Statistical Machine Translation for Text Simplification"), as TRACE's evaluation takes it: words of
//! `13a` in lower case, and the authors' program with its keep recall over all n-grams and 0/0 = 1.

use std::collections::HashMap;

use super::{ngrams::ngrams, tokens::words_13a};

/// The mean over n-grams of 1 to 4 of what is rightly kept (F1), deleted (precision) and added (F1), in [0, 1].
pub(super) fn sari(source: &str, prediction: &str, references: &[&str]) -> f64 {
    let words = |text: &str| words_13a(&text.to_lowercase());
    let (source, answer) = (words(source), words(prediction));
    let references: Vec<Vec<String>> = references.iter().map(|it| words(it)).collect();
    let orders = (1..=4).map(|n| of_order(n, &source, &answer, &references));
    orders.sum::<f64>() / 12.0
}

type Counts<'a> = HashMap<&'a [String], usize>;

fn of_order(n: usize, source: &[String], answer: &[String], references: &[Vec<String>]) -> f64 {
    let mut expected: Counts<'_> = HashMap::new();
    for reference in references {
        for (gram, count) in ngrams(reference, n) {
            *expected.entry(gram).or_insert(0) += count;
        }
    }
    // Each text counts as often as there are references.
    let times = |words| -> Counts<'_> {
        let counts = ngrams(words, n).into_iter();
        counts
            .map(|(gram, count)| (gram, count * references.len()))
            .collect()
    };
    let (source, answer) = (times(source), times(answer));
    keep(&source, &answer, &expected)
        + delete(&source, &answer, &expected)
        + add(&source, &answer, &expected)
}

fn keep(source: &Counts<'_>, answer: &Counts<'_>, expected: &Counts<'_>) -> f64 {
    let kept = both(source, answer);
    let right = both(&kept, expected);
    let all = both(source, expected);
    let precision: f64 = right
        .iter()
        .map(|(gram, count)| *count as f64 / kept[gram] as f64)
        .sum();
    let recall: usize = right.values().sum();
    let precision = share(precision, kept.len());
    harmonic(precision, share(recall as f64, all.values().sum()))
}

fn delete(source: &Counts<'_>, answer: &Counts<'_>, expected: &Counts<'_>) -> f64 {
    let deleted = less(source, answer);
    let right = less(&deleted, expected);
    let precision: f64 = right
        .iter()
        .map(|(gram, count)| *count as f64 / deleted[gram] as f64)
        .sum();
    share(precision, deleted.len())
}

fn add(source: &Counts<'_>, answer: &Counts<'_>, expected: &Counts<'_>) -> f64 {
    let new = |it: &Counts<'_>| it.keys().filter(|gram| !source.contains_key(*gram)).count();
    let added = answer.keys().filter(|gram| !source.contains_key(*gram));
    let right = added.filter(|gram| expected.contains_key(*gram)).count() as f64;
    harmonic(share(right, new(answer)), share(right, new(expected)))
}

fn share(of: f64, all: usize) -> f64 {
    if all == 0 { 1.0 } else { of / all as f64 }
}

fn harmonic(a: f64, b: f64) -> f64 {
    if a + b > 0.0 {
        2.0 * a * b / (a + b)
    } else {
        0.0
    }
}

fn both<'a>(a: &Counts<'a>, b: &Counts<'a>) -> Counts<'a> {
    let common = a
        .iter()
        .filter_map(|(gram, count)| Some((*gram, *b.get(gram)?.min(count))));
    common.collect()
}

fn less<'a>(a: &Counts<'a>, b: &Counts<'a>) -> Counts<'a> {
    let rest = a.iter().map(|(gram, count)| {
        (
            *gram,
            count.saturating_sub(b.get(gram).copied().unwrap_or(0)),
        )
    });
    rest.filter(|(_, count)| *count > 0).collect()
}
