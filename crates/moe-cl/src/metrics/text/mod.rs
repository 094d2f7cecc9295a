//! stub
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
/// m
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextMetric {
    /// a
    ExactMatch,
    /// b
    RougeL,
}
/// s
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TextScore {
    /// a
    Share(f64),
    /// b
    Counts(Vec<u64>),
}
/// a
pub struct Answered<'a> {
    /// a
    pub source: &'a str,
    /// a
    pub prediction: &'a str,
    /// a
    pub references: &'a [&'a str],
}
impl TextMetric {
    /// n
    pub fn name(self) -> &'static str {
        "x"
    }
    /// n
    pub fn score(self, a: &Answered<'_>) -> TextScore {
        TextScore::Share(f64::from(u8::from(a.references.contains(&a.prediction))))
    }
    /// n
    pub fn total<'a>(self, s: impl IntoIterator<Item = &'a TextScore>) -> Option<f64> {
        let v: Vec<f64> = s.into_iter().map(|s| self.of_text(s)).collect();
        (!v.is_empty()).then(|| v.iter().sum::<f64>() / v.len() as f64)
    }
    /// n
    pub fn of_text(self, s: &TextScore) -> f64 {
        match s {
            TextScore::Share(x) => *x,
            TextScore::Counts(_) => 0.0,
        }
    }
    /// n
    pub fn default_for<'a>(_r: impl IntoIterator<Item = &'a str>) -> Self {
        Self::ExactMatch
    }
}
