//! Precision, recall and F1 from a confusion matrix.

/// How often each class was taken for each: `counts[truth][prediction]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// `[classes][classes]`, rows are the true classes.
    pub counts: Vec<Vec<u64>>,
}

/// Precision, recall and their harmonic mean, each in [0, 1] and 0 where it is 0/0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Share of the predictions of a class that are right.
    pub precision: f64,
    /// Share of the samples of a class that are found.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

/// The scores of the classes, averaged in the three usual ways.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Averages {
    /// Every class that occurs (as truth or as prediction) counts alike.
    pub macro_: Scores,
    /// Every sample counts alike; all three figures equal the accuracy.
    pub micro: Scores,
    /// Classes count by their number of true samples.
    pub weighted: Scores,
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

impl Confusion {
    /// Counts pairs of true and predicted class.
    ///
    /// # Panics
    /// When the two differ in length or a class is not below `classes`.
    pub fn new(classes: usize, truth: &[usize], predicted: &[usize]) -> Self {
        assert_eq!(
            truth.len(),
            predicted.len(),
            "a prediction for every sample"
        );
        let mut counts = vec![vec![0; classes]; classes];
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            counts[truth][predicted] += 1;
        }
        Self { counts }
    }

    /// Number of samples.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Number of true samples of a class.
    pub fn support(&self, class: usize) -> u64 {
        self.counts[class].iter().sum()
    }

    fn predicted(&self, class: usize) -> u64 {
        self.counts.iter().map(|row| row[class]).sum()
    }

    fn right(&self) -> u64 {
        (0..self.counts.len())
            .map(|class| self.counts[class][class])
            .sum()
    }

    /// Share of the samples whose class is predicted rightly; 0 without samples.
    pub fn accuracy(&self) -> f64 {
        share(self.right(), self.total())
    }

    /// Scores of one class against the rest.
    pub fn scores(&self, class: usize) -> Scores {
        let right = self.counts[class][class];
        let (predicted, support) = (self.predicted(class), self.support(class));
        Scores {
            precision: share(right, predicted),
            recall: share(right, support),
            f1: share(2 * right, predicted + support),
        }
    }

    /// The scores of all classes, averaged.
    pub fn averages(&self) -> Averages {
        let occurring: Vec<usize> = (0..self.counts.len())
            .filter(|&c| self.support(c) + self.predicted(c) > 0)
            .collect();
        let mean = |weight: &dyn Fn(usize) -> f64| {
            let total: f64 = occurring.iter().map(|&class| weight(class)).sum();
            let mut sum = Scores::default();
            for &class in &occurring {
                let (scores, weight) = (self.scores(class), weight(class) / total);
                sum.precision += weight * scores.precision;
                sum.recall += weight * scores.recall;
                sum.f1 += weight * scores.f1;
            }
            sum
        };
        let accuracy = self.accuracy();
        Averages {
            macro_: mean(&|_| 1.0),
            micro: Scores {
                precision: accuracy,
                recall: accuracy,
                f1: accuracy,
            },
            weighted: mean(&|class| self.support(class) as f64),
        }
    }

    /// Matthews' correlation coefficient for any number of classes (Gorodkin 2004), in [−1, 1]; 0 where it is 0/0.
    pub fn matthews(&self) -> f64 {
        let (mut both, mut truth, mut predicted) = (0.0, 0.0, 0.0);
        for class in 0..self.counts.len() {
            let (t, p) = (self.support(class) as f64, self.predicted(class) as f64);
            both += t * p;
            truth += t * t;
            predicted += p * p;
        }
        let (right, total) = (self.right() as f64, self.total() as f64);
        let norm = ((total * total - predicted) * (total * total - truth)).sqrt();
        if norm == 0.0 {
            0.0
        } else {
            (right * total - both) / norm
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_prediction_scores_one_everywhere() {
        let confusion = Confusion::new(3, &[0, 1, 2, 1], &[0, 1, 2, 1]);
        let one = Scores {
            precision: 1.0,
            recall: 1.0,
            f1: 1.0,
        };
        assert_eq!(
            confusion.averages(),
            Averages {
                macro_: one,
                micro: one,
                weighted: one
            }
        );
        assert_eq!((confusion.accuracy(), confusion.matthews()), (1.0, 1.0));
    }

    #[test]
    fn an_unpredicted_class_has_precision_zero_not_nan() {
        let confusion = Confusion::new(2, &[0, 0, 1], &[0, 0, 0]);
        assert_eq!(confusion.scores(1), Scores::default());
        assert_eq!(confusion.matthews(), 0.0);
        assert_eq!(Confusion::new(2, &[], &[]).accuracy(), 0.0);
    }

    #[test]
    fn a_class_that_never_occurs_does_not_lower_the_macro_average() {
        assert_eq!(
            Confusion::new(5, &[0, 1], &[0, 1]).averages().macro_.f1,
            1.0
        );
    }
}
