//! What is kept of each text that was scored, so that any two runs can be compared text by text.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
};

use crate::metrics::{TextMetric, TextScore};

/// The score of each text of a task, in the order of its rows; none of nothing.
///
/// It is written as digits where every answer is right (`1`) or not (`0`), else as a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextScores(pub Vec<TextScore>);

/// The scores of a task's texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoredTexts {
    /// With the task given; empty where that was not measured.
    pub given: TextScores,
    /// With the task inferred; empty where it was not.
    pub inferred: TextScores,
}

impl TextScores {
    /// Whether nothing was scored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The score of each text by itself, in [0, 1], as the task's `metric` has it; none for the accuracy of labels.
    pub fn of_texts(&self, metric: Option<TextMetric>) -> Vec<f64> {
        let metric = metric.unwrap_or(TextMetric::ExactMatch);
        self.0.iter().map(|score| metric.of_text(score)).collect()
    }

    /// As digits, where all are right or wrong.
    fn digits(&self) -> Option<String> {
        let digit = |score: &TextScore| match score {
            TextScore::Share(0.0) => Some('0'),
            TextScore::Share(1.0) => Some('1'),
            _ => None,
        };
        self.0.iter().map(digit).collect()
    }
}

impl Serialize for TextScores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.digits() {
            Some(digits) => serializer.serialize_str(&digits),
            None => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TextScores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DigitsOrList)
    }
}

struct DigitsOrList;

impl<'de> Visitor<'de> for DigitsOrList {
    type Value = TextScores;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("digits 0 and 1, or a list of scores")
    }

    fn visit_str<E: serde::de::Error>(self, digits: &str) -> Result<TextScores, E> {
        let score = |digit: char| match digit {
            '0' => Ok(TextScore::Share(0.0)),
            '1' => Ok(TextScore::Share(1.0)),
            other => Err(E::custom(format!("`{other}` is no score: 0 or 1"))),
        };
        digits
            .chars()
            .map(score)
            .collect::<Result<_, E>>()
            .map(TextScores)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TextScores, A::Error> {
        let mut scores = Vec::new();
        while let Some(score) = list.next_element()? {
            scores.push(score);
        }
        match scores.is_empty() {
            true => Err(A::Error::custom("an empty list of scores")),
            false => Ok(TextScores(scores)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_back_as_they_were_and_right_answers_are_digits() {
        let share = TextScore::Share;
        let counts = TextScore::Counts(vec![1, 2, 3]);
        for (scores, digits) in [
            (vec![share(0.0), share(1.0)], Some(r#""01""#)),
            (vec![], Some(r#""""#)),
            (vec![share(0.0), share(0.25)], None),
            (vec![counts.clone(), counts], None),
        ] {
            let scores = TextScores(scores);
            let json = serde_json::to_string(&scores).unwrap();
            assert!(digits.is_none_or(|digits| digits == json), "{json}");
            assert_eq!(serde_json::from_str::<TextScores>(&json).unwrap(), scores);
        }
        assert!(serde_json::from_str::<TextScores>(r#""012""#).is_err());
    }
}
