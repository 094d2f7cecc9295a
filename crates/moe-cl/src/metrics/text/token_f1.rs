//! F1 of words as SQuAD's evaluation (version 2) counts it.

use super::{
    f1,
    ngrams::{in_common, ngrams},
};

/// Of two answers that are empty without articles and punctuation, 1; of one that is, 0.
pub(super) fn token_f1(prediction: &str, reference: &str) -> f64 {
    let (a, b) = (words(prediction), words(reference));
    if a.is_empty() || b.is_empty() {
        return f64::from(u8::from(a == b));
    }
    let common = in_common(&ngrams(&a, 1), &ngrams(&b, 1));
    f1(common, a.len(), b.len())
}

/// Lower case, no ASCII punctuation, no articles.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let bare: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let mut out = String::with_capacity(bare.len());
    let mut rest = bare.as_str();
    // Articles stand between characters that are no part of a word.
    while !rest.is_empty() {
        let in_word = |c: char| c.is_alphanumeric();
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out += if ["a", "an", "the"].contains(&word) {
            " "
        } else {
            word
        };
        let gap = after.find(in_word).unwrap_or(after.len());
        out += &after[..gap];
        rest = &after[gap..];
    }
    out.split_whitespace().map(str::to_owned).collect()
}
