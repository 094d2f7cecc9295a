//! A test part for a task that names none.

use std::collections::BTreeMap;

use rand::{Rng, seq::SliceRandom};

use super::{Record, Row};

/// A tenth of the records is kept out, at least one and at most so many.
const MOST: usize = 1000;

/// Takes a tenth of the rows out of `train`, of each label its share, in the order of the file. Records that are the same go together,
/// so that nothing that is scored is learnt.
pub(super) fn held_out(train: &mut Vec<Row>, rng: &mut impl Rng) -> Vec<Row> {
    let wanted = (train.len() / 10).clamp(1, MOST);
    let mut groups: BTreeMap<&str, BTreeMap<String, Vec<usize>>> = BTreeMap::new();
    for (index, row) in train.iter().enumerate() {
        let label = match &row.record {
            Record::Classification { label, .. } => label.as_str(),
            Record::Instruction { .. } => "",
        };
        let same = groups.entry(label).or_default();
        same.entry(row.record.bare_text()).or_default().push(index);
    }
    let total = train.len();
    let mut out = vec![false; total];
    let mut taken = 0;
    for same in groups.into_values() {
        let size: usize = same.values().map(Vec::len).sum();
        let share = (size * wanted).div_ceil(total);
        let mut members: Vec<Vec<usize>> = same.into_values().collect();
        members.shuffle(rng);
        let mut of_label = 0;
        // One text of a label stays to be learnt from.
        let spare = members.len().saturating_sub(1);
        for member in members.into_iter().take(spare) {
            if of_label >= share || taken >= wanted.max(1) {
                break;
            }
            of_label += member.len();
            taken += member.len();
            for index in member {
                out[index] = true;
            }
        }
    }
    let mut kept = Vec::with_capacity(total);
    let mut test = Vec::with_capacity(taken);
    for (row, out) in std::mem::take(train).into_iter().zip(out) {
        if out { test.push(row) } else { kept.push(row) }
    }
    *train = kept;
    test
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_tenth_of_each_label_is_kept_out_and_nothing_of_it_is_learnt() {
        let row = |index: usize| {
            let label = if index.is_multiple_of(4) { "a" } else { "b" };
            let text = format!("text {}", index / 2 * 2 + index % 2);
            Row::kept(Record::Classification {
                text,
                label: label.into(),
            })
        };
        let all: Vec<Row> = (0..200).map(row).collect();
        let mut train = all.clone();
        let test = held_out(&mut train, &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!((train.len(), test.len()), (180, 20));
        let of_a = test.iter().filter(|row| row.record.answer() == "a").count();
        assert_eq!(of_a, 5);
        assert!(test.iter().all(|row| !train.contains(row)));
        let mut again = all.clone();
        assert_eq!(
            held_out(&mut again, &mut ChaCha8Rng::seed_from_u64(0)),
            test
        );
        let mut one = all[..2].to_vec();
        assert_eq!(
            held_out(&mut one, &mut ChaCha8Rng::seed_from_u64(0)).len(),
            0
        );
    }
}
