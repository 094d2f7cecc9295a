//! How well a score tells two kinds of samples apart, over all thresholds at once.

/// Area under the ROC curve: the probability that a random positive scores above a random negative, ties counting half
/// (the Mann–Whitney statistic). None where either side is empty.
pub fn auroc(positives: &[f64], negatives: &[f64]) -> Option<f64> {
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = positives
        .iter()
        .map(|&score| (score, true))
        .chain(negatives.iter().map(|&score| (score, false)))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let positive = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        let negative = tied.len() as f64 - positive;
        wins += positive * (below + negative / 2.0);
        below += negative;
    }
    Some(wins / (positives.len() * negatives.len()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_worked_area() {
        // Of the six pairs 3>1, 3>2, 2>1 and 2=2 (half), 0<1, 0<2: 3.5 of 6.
        assert_eq!(auroc(&[3.0, 2.0, 0.0], &[1.0, 2.0]), Some(3.5 / 6.0));
    }

    #[test]
    fn order_alone_decides() {
        assert_eq!(auroc(&[0.2, 0.3], &[0.1, -5.0]), Some(1.0));
        assert_eq!(auroc(&[1.0, 1.0], &[1.0]), Some(0.5));
        assert_eq!(auroc(&[], &[1.0]), None);
    }
}
