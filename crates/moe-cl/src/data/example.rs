//! A record as tokens.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A record as tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The text; as an instruction, prompt and answer, or where it is only asked about the prompt.
    pub tokens: Vec<u32>,
    /// Its class, where the task has labels.
    pub label: Option<usize>,
    /// Where in `tokens` the answers stand that are learnt, their end tokens included; empty with heads, and where it is asked about.
    pub answers: Vec<Range<usize>>,
}

impl Example {
    /// A prompt and the one answer that is learnt after it.
    pub(super) fn of_answer(mut tokens: Vec<u32>, answer: Vec<u32>, label: Option<usize>) -> Self {
        let start = tokens.len();
        tokens.extend(answer);
        Self {
            label,
            answers: std::iter::once(start..tokens.len()).collect(),
            tokens,
        }
    }

    /// Tokens that are learnt.
    pub fn answer_tokens(&self) -> usize {
        self.answers.iter().map(Range::len).sum()
    }
}
