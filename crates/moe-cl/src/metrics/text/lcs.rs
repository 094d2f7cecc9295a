//! Length of a longest common subsequence, 64 cells at a time (Hyyrö 2004).

use std::collections::HashMap;
use std::hash::Hash;

/// How many items the longest sequence has that is in both, not necessarily in one piece.
pub(super) fn longest_common<T: Eq + Hash>(a: &[T], b: &[T]) -> usize {
    let words = a.len().div_ceil(64);
    let mut places: HashMap<&T, Vec<u64>> = HashMap::new();
    for (index, item) in a.iter().enumerate() {
        places.entry(item).or_insert_with(|| vec![0; words])[index / 64] |= 1 << (index % 64);
    }
    // A zero marks a place of `a` where the sequence grows by one.
    let mut row = vec![u64::MAX; words];
    for item in b {
        let Some(places) = places.get(item) else {
            continue;
        };
        let mut carry = 0;
        for (cell, place) in row.iter_mut().zip(places) {
            let (sum, first) = cell.overflowing_add(*cell & place);
            let (sum, second) = sum.overflowing_add(carry);
            carry = u64::from(first || second);
            *cell = sum | (*cell & !place);
        }
    }
    let zeros = row.iter().enumerate().map(|(word, cell)| {
        let used = (a.len() - word * 64).min(64);
        let mask = u64::MAX >> (64 - used);
        (!cell & mask).count_ones() as usize
    });
    zeros.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_the_table<T: PartialEq>(a: &[T], b: &[T]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut diagonal = 0;
            for (index, y) in b.iter().enumerate() {
                let above = row[index + 1];
                row[index + 1] = if x == y {
                    diagonal + 1
                } else {
                    above.max(row[index])
                };
                diagonal = above;
            }
        }
        row[b.len()]
    }

    #[test]
    fn it_is_what_the_table_says() {
        let mut state = 1u64;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for length in [0usize, 1, 5, 63, 64, 65, 130, 300] {
            for letters in [1, 2, 5, 40] {
                let a: Vec<u64> = (0..length).map(|_| draw(letters)).collect();
                let b: Vec<u64> = (0..length / 2 + 3).map(|_| draw(letters)).collect();
                assert_eq!(longest_common(&a, &b), by_the_table(&a, &b));
                assert_eq!(longest_common(&b, &a), by_the_table(&a, &b));
            }
        }
    }
}
