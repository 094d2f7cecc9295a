use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Reference {
    texts: Vec<Text>,
    corpus: BTreeMap<String, f64>,
    stems: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Text {
    source: String,
    prediction: String,
    references: Vec<String>,
    scores: BTreeMap<String, f64>,
}

impl Text {
    fn scored(&self, metric: TextMetric, references: usize) -> TextScore {
        let last = self.references.len() - 1;
        let references: Vec<&str> = (0..references)
            .map(|index| self.references[index.min(last)].as_str())
            .collect();
        metric.score(&Answered {
            source: &self.source,
            prediction: &self.prediction,
            references: &references,
        })
    }
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("fixtures/scores.json")).unwrap()
}

#[test]
fn every_text_has_the_score_of_the_python_packages() {
    for text in reference().texts {
        for metric in TextMetric::ALL {
            let Some(expected) = text.scores.get(metric.name()) else {
                continue;
            };
            let got = metric.of_text(&text.scored(metric, text.references.len()));
            let (prediction, references) = (&text.prediction, &text.references);
            assert!(
                (got - expected).abs() < 1e-6,
                "{}: {got}, expected {expected}: {prediction:?} {references:?}",
                metric.name()
            );
        }
    }
}

#[test]
fn many_texts_together_have_the_score_of_the_python_packages() {
    let reference = reference();
    for (name, references) in [("", 1), ("_two", 2)] {
        for metric in [TextMetric::Bleu, TextMetric::Chrf] {
            let scores: Vec<TextScore> = reference
                .texts
                .iter()
                .map(|text| text.scored(metric, references))
                .collect();
            let expected = reference.corpus[&format!("{}{name}", metric.name())];
            let got = metric.total(&scores).unwrap();
            assert!(
                (got - expected).abs() < 1e-6,
                "{}: {got}, expected {expected}",
                metric.name()
            );
            // The order of the texts says nothing.
            let turned: Vec<TextScore> = scores.into_iter().rev().collect();
            assert_eq!(metric.total(&turned), Some(got));
        }
    }
}

#[test]
fn stems_are_those_of_nltk() {
    for (word, stem) in reference().stems {
        assert_eq!(porter::stem(&word), stem, "{word}");
    }
}

#[test]
fn scores_are_shares_and_the_same_text_has_all_of_it() {
    for text in reference().texts {
        for metric in TextMetric::ALL {
            let score = text.scored(metric, text.references.len());
            let share = metric.of_text(&score);
            assert!(
                (0.0..=1.0 + 1e-12).contains(&share),
                "{} {share}",
                metric.name()
            );
        }
        let same = text.references[0].as_str();
        for metric in TextMetric::ALL {
            let answered = Answered {
                source: same,
                prediction: same,
                references: &[same],
            };
            let share = metric.of_text(&metric.score(&answered));
            // A text of no letter or digit has no word to count.
            let empty = !same.chars().any(|c| c.is_ascii_alphanumeric());
            let pairs = metric == TextMetric::Rouge2 && same.split_whitespace().count() < 2;
            assert!(
                (share - 1.0).abs() < 1e-9 || empty || pairs,
                "{} {share} {same:?}",
                metric.name()
            );
        }
    }
    for metric in TextMetric::ALL {
        assert_eq!(metric.total(&[]), None);
        let name = serde_json::to_string(&metric).unwrap();
        assert_eq!(name, format!("{:?}", metric.name()));
    }
}

#[test]
fn short_answers_are_compared_whole() {
    assert_eq!(
        TextMetric::default_for(["yes", "not at all"]),
        TextMetric::ExactMatch
    );
    let long = "one two three four five six";
    assert_eq!(TextMetric::default_for(["yes", long]), TextMetric::RougeL);
}
