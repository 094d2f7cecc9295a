//! Sequences of n neighbours, and how often each is there.

use std::collections::HashMap;
use std::hash::Hash;

/// How often each n-gram of `items` is there.
pub(super) fn ngrams<T: Eq + Hash>(items: &[T], n: usize) -> HashMap<&[T], usize> {
    let mut counts = HashMap::new();
    for window in items.windows(n) {
        *counts.entry(window).or_insert(0) += 1;
    }
    counts
}

/// How many of `of` are also in `with`, each as often as both have it.
pub(super) fn in_common<K: Eq + Hash>(of: &HashMap<K, usize>, with: &HashMap<K, usize>) -> usize {
    let common = of
        .iter()
        .map(|(gram, count)| with.get(gram).map_or(0, |it| *it.min(count)));
    common.sum()
}
