//! Scores of answers in free text, each against independent reference values (`fixtures/`).

mod bleu;
mod chrf;
mod edit_similarity;
mod lcs;
mod ngrams;
mod porter;
mod rouge;
mod sari;
mod token_f1;
mod tokens;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{exact_match::same_answer, mean};

/// How an answer that was written is scored against those that are right. All lie in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextMetric {
    /// Whether it is one of the right answers, case, punctuation and spacing apart.
    ExactMatch,
    /// F1 of its words, stemmed, as the package `rouge-score` (Lin 2004).
    Rouge1,
    /// F1 of its pairs of words, stemmed.
    Rouge2,
    /// F1 of the longest sequence of words in common, stemmed.
    RougeL,
    /// F1 of its words without articles and punctuation, as SQuAD scores it (arXiv 1606.05250).
    TokenF1,
    /// BLEU over all texts together, as the package `sacrebleu` (tokens `13a`, smoothing `exp`; Papineni et al. 2002).
    Bleu,
    /// chrF2 over all texts together, as the package `sacrebleu` (characters 1 to 6; Popović 2015).
    Chrf,
    /// What is kept, deleted and added against the question's text, for simplifications (Xu et al. 2016).
    Sari,
    /// Share of the characters of both that a longest common sequence holds, as `fuzz.ratio` of the package `rapidfuzz`.
    EditSimilarity,
}

/// What is kept of one text that was scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TextScore {
    /// Its score, in [0, 1].
    Share(f64),
    /// What BLEU or chrF count in it: summed over texts, the score of all.
    Counts(Vec<u64>),
}

/// An answer to be scored.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// What was asked; SARI alone reads it.
    pub source: &'a str,
    /// What was answered.
    pub prediction: &'a str,
    /// The right answers, at least one.
    pub references: &'a [&'a str],
}

/// Right answers up to so many words and characters are compared whole.
const SHORT: (usize, usize) = (5, 40);

impl TextMetric {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ExactMatch,
        Self::Rouge1,
        Self::Rouge2,
        Self::RougeL,
        Self::TokenF1,
        Self::Bleu,
        Self::Chrf,
        Self::Sari,
        Self::EditSimilarity,
    ];

    /// As settings and tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactMatch => "exact_match",
            Self::Rouge1 => "rouge1",
            Self::Rouge2 => "rouge2",
            Self::RougeL => "rouge_l",
            Self::TokenF1 => "token_f1",
            Self::Bleu => "bleu",
            Self::Chrf => "chrf",
            Self::Sari => "sari",
            Self::EditSimilarity => "edit_similarity",
        }
    }

    /// [`Self::ExactMatch`] where every right answer has at most five words and 40 characters, else [`Self::RougeL`].
    pub fn default_for<'a>(references: impl IntoIterator<Item = &'a str>) -> Self {
        let short = |text: &str| {
            text.split_whitespace().count() <= SHORT.0 && text.chars().count() <= SHORT.1
        };
        match references.into_iter().all(short) {
            true => Self::ExactMatch,
            false => Self::RougeL,
        }
    }

    /// Scores one answer; of several right ones the nearest counts.
    pub fn score(self, answered: &Answered<'_>) -> TextScore {
        let Answered {
            source,
            prediction,
            references,
        } = *answered;
        let best = |score: &dyn Fn(&str) -> f64| {
            let scores = references.iter().map(|reference| score(reference));
            TextScore::Share(scores.fold(0.0, f64::max))
        };
        match self {
            Self::ExactMatch => best(&|it| f64::from(u8::from(same_answer(prediction, it)))),
            Self::Rouge1 => best(&|it| rouge::of_ngrams(1, prediction, it)),
            Self::Rouge2 => best(&|it| rouge::of_ngrams(2, prediction, it)),
            Self::RougeL => best(&|it| rouge::of_sequence(prediction, it)),
            Self::TokenF1 => best(&|it| token_f1::token_f1(prediction, it)),
            Self::EditSimilarity => best(&|it| edit_similarity::edit_similarity(prediction, it)),
            Self::Sari => TextScore::Share(sari::sari(source, prediction, references)),
            Self::Bleu => TextScore::Counts(bleu::counts(prediction, references)),
            Self::Chrf => TextScore::Counts(chrf::counts(prediction, references)),
        }
    }

    /// The score of all texts: the mean, or for BLEU and chrF what all counts together say; none of nothing.
    pub fn total<'a>(self, scores: impl IntoIterator<Item = &'a TextScore>) -> Option<f64> {
        let of_counts: fn(&[u64]) -> f64 = match self {
            Self::Bleu => |counts| bleu::score(counts, false),
            Self::Chrf => chrf::score,
            _ => return mean(scores.into_iter().map(|score| self.of_text(score))),
        };
        let mut sum: Option<Vec<u64>> = None;
        for score in scores {
            if let TextScore::Counts(counts) = score {
                let sum = sum.get_or_insert_with(|| vec![0; counts.len()]);
                for (sum, count) in sum.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
        }
        sum.map(|counts| of_counts(&counts))
    }

    /// One text's own score, for comparisons text by text.
    pub fn of_text(self, score: &TextScore) -> f64 {
        match (self, score) {
            (_, TextScore::Share(share)) => *share,
            (Self::Chrf, TextScore::Counts(counts)) => chrf::score(counts),
            (_, TextScore::Counts(counts)) => bleu::score(counts, true),
        }
    }
}

/// The harmonic mean of precision and recall; 0 where nothing is right.
fn f1(right: usize, predicted: usize, expected: usize) -> f64 {
    match right {
        0 => 0.0,
        _ => 2.0 * right as f64 / (predicted + expected) as f64,
    }
}

#[cfg(test)]
mod tests;
