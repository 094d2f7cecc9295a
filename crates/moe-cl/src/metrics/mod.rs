//! What a run is judged by: the accuracy matrix and its figures, answers compared as text, classification scores, and the share of work a model takes off reviewers.

mod auroc;
mod classification;
mod exact_match;
mod inferred;
mod matrix;
mod stripping;

pub use auroc::auroc;
pub use classification::{Averages, Confusion, Scores};
pub use exact_match::{exact_matches, normalise, same_answer};
pub use inferred::{Inferred, mean_open_set_auroc};
pub use matrix::{AccuracyMatrix, Summary};
pub use stripping::{Stripped, Stripping};
