//! How much of two texts is the same: normalised Indel similarity, `rapidfuzz.fuzz.ratio / 100`.

use super::lcs::longest_common;

/// `2 · LCS / (length of both)` in characters; two empty texts are the same.
pub(super) fn edit_similarity(prediction: &str, reference: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) =
        (prediction.chars().collect(), reference.chars().collect());
    match a.len() + b.len() {
        0 => 1.0,
        both => 2.0 * longest_common(&a, &b) as f64 / both as f64,
    }
}
