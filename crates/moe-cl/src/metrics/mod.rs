//! What a run is judged by: the accuracy matrix and its figures, answers compared as text, classification scores, and the share of work a model takes off reviewers.

mod auroc;
mod classification;
mod exact_match;
mod inferred;
mod matrix;
mod stripping;
mod summary;
mod text;

pub use auroc::auroc;
pub use classification::{Averages, Confusion, Scores};
pub use exact_match::{exact_matches, normalise, same_answer};
pub use inferred::{Inferred, mean_open_set_auroc};
pub use matrix::AccuracyMatrix;
pub use stripping::Stripping;
pub use summary::{Coverage, Over, Summary};
pub use text::{Answered, TextMetric, TextScore};

/// The mean; none of nothing.
fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values
        .into_iter()
        .fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}
