//! A classification head that starts where ridge regression puts it.
//!
//! A head drawn at random pulls the experts about until it has found its place, and with a few dozen steps per task that is
//! most of them; a head that fits first lets the experts move from where they are (Kumar et al. 2022, "Fine-tuning can distort
//! pretrained features", arXiv 2202.10054). Nothing is taken from dev or test texts.

use burn::tensor::TensorData;

use super::stream::Task;
use crate::{
    answering::Answerer,
    base::Base,
    data::Example,
    learner::Learner,
    predict::text_features,
    router::{Matrix, RecursiveRidge},
};

/// Ridges that are tried, as multiples of the features' mean square.
const RIDGES: [f64; 6] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Factors of the regression's scores, as logits, that are tried.
const FACTORS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// Texts that the regression learns at once.
const BLOCK: usize = 256;

/// The head `[d_model, classes]` of a task before its first step: the ridge regression of the labels (one-hot, less their mean
/// over the classes) on the features of the training texts, as logits. Ridge and factor are those with the least
/// cross-entropy on the training texts, each scored as if it were not among them.
pub(super) fn ridge_head(
    base: &Base,
    learner: &Learner,
    answerer: Answerer<'_>,
    task: &Task,
    batch_size: usize,
) -> TensorData {
    let d_model = base.decoder.config().d_model;
    let mut features = Vec::with_capacity(task.train.len() * d_model);
    for texts in task.train.chunks(batch_size) {
        let texts: Vec<&Example> = texts.iter().collect();
        let rows = text_features(base, learner, answerer, &texts).into_data();
        features.extend(rows.iter::<f32>().map(f64::from));
    }
    let x = Matrix::new(task.train.len(), d_model, features);
    let classes: Vec<usize> = task.train.iter().filter_map(|text| text.label).collect();
    let weight = regression(&x, &classes, task.labels.len());
    let values: Vec<f32> = weight.values().iter().map(|&w| w as f32).collect();
    TensorData::new(values, [d_model, task.labels.len()])
}

/// `x [n, features]` and the class of each row → logits' weights `[features, classes]`.
fn regression(x: &Matrix, classes: &[usize], count: usize) -> Matrix {
    let mean_square = x.values().iter().map(|x| x * x).sum::<f64>() / x.values().len() as f64;
    let mut y = Matrix::zeros(x.rows(), count);
    for (row, &class) in classes.iter().enumerate() {
        y.row_mut(row).fill(-1.0 / count as f64);
        y.row_mut(row)[class] += 1.0;
    }
    let mut best = (f64::INFINITY, Matrix::zeros(x.columns(), count));
    for ridge in RIDGES {
        let mut solution = RecursiveRidge::new(x.columns(), ridge * mean_square * x.rows() as f64);
        for start in (0..x.rows()).step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(x.rows());
            solution.learn(&x.slice_rows(rows.clone()), &y.slice_rows(rows));
        }
        let left_out = left_out(&solution, x, &y);
        for factor in FACTORS {
            let loss = cross_entropy(&left_out, classes, factor);
            if loss < best.0 {
                best = (loss, solution.weights().clone().map(|w| w * factor));
            }
        }
    }
    best.1
}

/// What the regression says of each row when it is trained on all others: `(ŷ − h y) / (1 − h)`, with the row's leverage h.
fn left_out(solution: &RecursiveRidge, x: &Matrix, y: &Matrix) -> Matrix {
    let leverages = solution.leverages(x);
    let mut scores = solution.predict(x);
    for (row, leverage) in leverages.into_iter().enumerate() {
        for (score, target) in scores.row_mut(row).iter_mut().zip(y.row(row)) {
            *score = (*score - leverage * target) / (1.0 - leverage);
        }
    }
    scores
}

/// Mean cross-entropy of `factor · scores [n, classes]` as logits.
fn cross_entropy(scores: &Matrix, classes: &[usize], factor: f64) -> f64 {
    let losses = scores.iter_rows().zip(classes).map(|(scores, &class)| {
        let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores
            .iter()
            .map(|score| (factor * (score - greatest)).exp())
            .sum();
        sum.ln() - factor * (scores[class] - greatest)
    });
    losses.sum::<f64>() / classes.len() as f64
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::seeds::{Purpose, Seeds};

    /// `count` rows around one corner of a cube per class.
    fn texts(count: usize, place: usize) -> (Matrix, Vec<usize>) {
        let mut rng = Seeds(3).rng(Purpose::RandomFeatures, place, 0);
        let (mut values, mut classes) = (Vec::new(), Vec::new());
        for row in 0..count {
            let class = row % 3;
            values.extend((0..8).map(|column| {
                let centre = if column % 3 == class { 1.0 } else { 0.0 };
                centre + rng.random_range(-0.6..0.6)
            }));
            classes.push(class);
        }
        (Matrix::new(count, 8, values), classes)
    }

    fn accuracy(weight: &Matrix, x: &Matrix, classes: &[usize]) -> f64 {
        let scores = x.matmul(weight);
        let right = scores.iter_rows().zip(classes).filter(|(scores, class)| {
            let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.map(|(index, _)| index) == Some(**class)
        });
        right.count() as f64 / classes.len() as f64
    }

    #[test]
    fn the_head_names_the_classes_of_unseen_texts_and_is_calibrated() {
        let (x, classes) = texts(600, 0);
        let weight = regression(&x, &classes, 3);
        let (unseen, truth) = texts(300, 1);
        assert!(accuracy(&weight, &unseen, &truth) > 0.95);
        let loss = cross_entropy(&unseen.matmul(&weight), &truth, 1.0);
        assert!(loss < 0.2, "{loss}");
    }

    #[test]
    fn a_row_left_out_is_a_row_not_learnt() {
        let (x, classes) = texts(12, 0);
        let mut y = Matrix::zeros(12, 3);
        classes
            .iter()
            .enumerate()
            .for_each(|(row, &class)| y.row_mut(row)[class] = 1.0);
        let solve = |x: &Matrix, y: &Matrix| {
            let mut solution = RecursiveRidge::new(8, 0.7);
            solution.learn(x, y);
            solution
        };
        let all = left_out(&solve(&x, &y), &x, &y);
        let alone = solve(&x.slice_rows(0..11), &y.slice_rows(0..11)).predict(&x);
        for (a, b) in all.row(11).iter().zip(alone.row(11)) {
            assert!((a - b).abs() < 1e-10, "{a} {b}");
        }
    }

    #[test]
    fn labels_that_say_nothing_give_a_head_that_says_little() {
        let (x, _) = texts(90, 0);
        let classes: Vec<usize> = (0..90).map(|row| (row / 3) % 3).collect();
        let weight = regression(&x, &classes, 3);
        let loss = cross_entropy(&x.matmul(&weight), &classes, 1.0);
        assert!((loss - 3f64.ln()).abs() < 0.1, "{loss}");
    }
}
