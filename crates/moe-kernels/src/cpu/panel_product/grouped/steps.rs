//! How grouped products are cut: factors into steps of as many lanes as a panel has, groups into chunks of rows.

use std::ops::Range;

use crate::cpu::panel_product::tasks::DEPTH;
use crate::cpu::panel_product::tile::ROWS;

/// Most lanes of the panels that are laid out at a time: 295 kB.
const ROUND: usize = 2 * DEPTH;

/// Lanes `start..start + deep` of a factor.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) factor: usize,
    pub(super) start: usize,
    pub(super) deep: usize,
}

/// All steps through factors of so many lanes, as many together as [`ROUND`] allows.
pub(super) fn rounds(lanes: &[usize]) -> Vec<Vec<Step>> {
    let mut rounds: Vec<Vec<Step>> = vec![Vec::new()];
    let mut taken = 0;
    for (factor, &lanes) in lanes.iter().enumerate() {
        for start in (0..lanes).step_by(DEPTH) {
            let deep = (lanes - start).min(DEPTH);
            if taken + deep > ROUND {
                rounds.push(Vec::new());
                taken = 0;
            }
            taken += deep;
            let step = Step {
                factor,
                start,
                deep,
            };
            rounds.last_mut().expect("a round").push(step);
        }
    }
    rounds
}

/// A group's rows in chunks of about one size, at most `most`.
pub(super) fn chunks(
    group: usize,
    rows: &Range<usize>,
    most: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
    let Range { start, end } = *rows;
    let size = rows
        .len()
        .div_ceil(rows.len().div_ceil(most))
        .next_multiple_of(ROWS);
    (start..end)
        .step_by(size)
        .map(move |first| (group, first..end.min(first + size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_through_all_lanes_once() {
        for lanes in [
            &[1][..],
            &[DEPTH, DEPTH],
            &[DEPTH + 1, 5],
            &[3 * DEPTH + 7, 2 * DEPTH, 1],
        ] {
            let mut next = vec![0; lanes.len()];
            for round in rounds(lanes) {
                assert!(round.iter().map(|step| step.deep).sum::<usize>() <= ROUND);
                for step in round {
                    assert_eq!(step.start, next[step.factor]);
                    next[step.factor] += step.deep;
                }
            }
            assert_eq!(next, lanes);
        }
    }

    #[test]
    fn chunks_are_of_about_one_size() {
        let of = |rows| {
            chunks(3, &rows, 64)
                .map(|(_, rows)| rows)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(5..70), [5..45, 45..70]);
        assert_eq!(of(0..65), [0..40, 40..65]);
        assert_eq!(of(0..64).len(), 1);
    }
}
