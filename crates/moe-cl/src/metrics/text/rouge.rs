//! ROUGE (Lin 2004) as the package `rouge-score` computes it, with stems.

use super::{
    f1,
    lcs::longest_common,
    ngrams::{in_common, ngrams},
    porter::stem,
};

/// ROUGE-n, its F1.
pub(super) fn of_ngrams(n: usize, prediction: &str, reference: &str) -> f64 {
    let (a, b) = (words(prediction), words(reference));
    let count = |words: &[String]| (words.len() + 1).saturating_sub(n);
    f1(
        in_common(&ngrams(&a, n), &ngrams(&b, n)),
        count(&a),
        count(&b),
    )
}

/// ROUGE-L, its F1.
pub(super) fn of_sequence(prediction: &str, reference: &str) -> f64 {
    let (a, b) = (words(prediction), words(reference));
    f1(longest_common(&a, &b), a.len(), b.len())
}

/// Runs of ASCII letters and digits in lower case, those of more than three characters stemmed.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(|word| {
            if word.len() > 3 {
                stem(word)
            } else {
                word.to_owned()
            }
        })
        .collect()
}
