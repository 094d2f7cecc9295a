//! What a run is judged by: the accuracy matrix and its figures, answers compared as text, classification scores, and the share of work a model takes off reviewers.

mod classification;
mod exact_match;
mod matrix;
mod stripping;

pub use classification::{Averages, Confusion, Scores};
pub use exact_match::{exact_matches, normalise, same_answer};
pub use matrix::{AccuracyMatrix, Summary};
pub use stripping::{Stripped, Stripping};
