//! From rated snippets to labelled, split texts.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::error::{Result, SourceError};

/// Texts whose mean rating is nearer to zero than this are dropped: half a step on the raters' scale, on which
/// −1 and 1 are the weakest opinions, so what remains leans clearly to one side.
const NEUTRAL: f64 = 0.5;

/// Of all texts of a file by how far their mean rating is from zero, those below the first share are mild and those above the second
/// strong; what lies between is dropped.
const MIDDLE: (f64, f64) = (0.4, 0.6);

/// What is asked about the texts of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Which way the feeling goes: `negative` or `positive`.
    Sentiment,
    /// How strong it is, whichever way it goes: `mild` or `strong`.
    Strength,
}

impl Question {
    /// The label of a mean rating, `middle` being the bounds of [`MIDDLE`]; none for one that is between two.
    fn label(self, mean: f64, middle: (f64, f64)) -> Option<&'static str> {
        match self {
            Self::Sentiment if mean.abs() < NEUTRAL => None,
            Self::Sentiment if mean > 0.0 => Some("positive"),
            Self::Sentiment => Some("negative"),
            Self::Strength if mean.abs() <= middle.0 => Some("mild"),
            Self::Strength if mean.abs() >= middle.1 => Some("strong"),
            Self::Strength => None,
        }
    }
}

/// What a text is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    Train,
    Dev,
    Test,
}

impl Split {
    pub(super) const ALL: [Self; 3] = [Self::Train, Self::Dev, Self::Test];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }

    /// Eight tenths to train, one to dev, one to test, by the hash of what must stay together.
    fn of(group: &str) -> Self {
        match hash(group) % 10 {
            0 => Self::Test,
            1 => Self::Dev,
            _ => Self::Train,
        }
    }
}

/// A text with its label and use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labelled {
    pub(super) text: String,
    pub(super) label: &'static str,
    pub(super) split: Split,
}

/// Labels the lines `id \t mean rating \t text` of one file.
///
/// The same text (but for case and spaces) counts once, with the mean of its ratings. Snippets with ids like `7_12`
/// come from one review or article, 7, and stay in one split; otherwise a text's own hash decides. Within a split the order is that of
/// the texts' hashes, so that the first n of them are a fair sample.
///
/// # Errors
/// When a line has another form.
pub(super) fn label(file: &str, bytes: &[u8], question: Question) -> Result<Vec<Labelled>> {
    let mut texts: BTreeMap<String, Rated> = BTreeMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = decode(line);
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            continue;
        }
        let (id, rating, text) = parse(line).ok_or_else(|| {
            SourceError::new(format!(
                "{file}:{}: expected `id, mean rating, text`",
                index + 1
            ))
        })?;
        let text = unescape(text.trim());
        let key = text
            .to_lowercase()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        if key.is_empty() {
            continue;
        }
        let group = id
            .split_once('_')
            .map_or_else(|| key.clone(), |(source, _)| format!("{file} {source}"));
        let rated = texts.entry(key).or_insert(Rated {
            text,
            group,
            sum: 0.0,
            times: 0.0,
        });
        rated.sum += rating;
        rated.times += 1.0;
    }
    let middle = middle(texts.values().map(|rated| rated.mean().abs()).collect());
    let mut kept = texts
        .into_iter()
        .filter_map(|(key, rated)| {
            let labelled = Labelled {
                label: question.label(rated.mean(), middle)?,
                split: Split::of(&rated.group),
                text: rated.text,
            };
            Some((hash(&key), labelled))
        })
        .collect::<Vec<_>>();
    kept.sort_by_key(|(order, _)| *order);
    Ok(kept.into_iter().map(|(_, labelled)| labelled).collect())
}

/// The bounds of what is neither mild nor strong.
fn middle(mut strengths: Vec<f64>) -> (f64, f64) {
    strengths.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (strengths.len() as f64 * share) as usize;
        strengths.get(place).copied().unwrap_or(0.0)
    };
    (at(MIDDLE.0), at(MIDDLE.1))
}

struct Rated {
    text: String,
    group: String,
    sum: f64,
    times: f64,
}

impl Rated {
    fn mean(&self) -> f64 {
        self.sum / self.times
    }
}

fn parse(line: &str) -> Option<(&str, f64, &str)> {
    let (id, rest) = line.split_once('\t')?;
    let (rating, text) = rest.split_once('\t')?;
    Some((
        id,
        rating
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|rating| rating.is_finite())?,
        text,
    ))
}

/// UTF-8, or Latin-1 where a line is not.
fn decode(line: &[u8]) -> String {
    match std::str::from_utf8(line) {
        Ok(text) => text.to_string(),
        Err(_) => line.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Undoes HTML's escapes, which some texts went through twice (`&amp;amp;`, `&amp;#38;`).
fn unescape(text: &str) -> String {
    let once = |text: &str| {
        let text = text
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'");
        text.replace("&#38;", "&").replace("&amp;", "&")
    };
    once(&once(text))
}

fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentiment(bytes: &[u8]) -> Result<Vec<Labelled>> {
        label("f", bytes, Question::Sentiment)
    }

    #[test]
    fn strength_is_the_same_for_both_signs_and_the_middle_is_dropped() {
        let lines: String = (0..100)
            .map(|i| {
                let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
                format!("{i}\t{}\ttext {i}\n", sign * i as f64 / 25.0)
            })
            .collect();
        let texts = label("f", lines.as_bytes(), Question::Strength).unwrap();
        let mean = |text: &Labelled| text.text["text ".len()..].parse::<f64>().unwrap() / 25.0;
        for text in &texts {
            let strong = text.label == "strong";
            assert_eq!(strong, mean(text) > 2.0, "{}", text.text);
        }
        let strong = texts.iter().filter(|text| text.label == "strong").count();
        assert_eq!((strong, texts.len()), (40, 81));
    }

    #[test]
    fn the_mean_rating_decides_and_near_zero_is_dropped() {
        let texts = sentiment(b"1\t2.0\tgood\r\n2\t-0.5\tbad\r\n3\t0.49\tmeh\r\n").unwrap();
        let mut found = texts
            .iter()
            .map(|text| (text.text.as_str(), text.label))
            .collect::<Vec<_>>();
        found.sort_unstable();
        assert_eq!(found, [("bad", "negative"), ("good", "positive")]);
    }

    #[test]
    fn the_same_text_counts_once_with_the_mean_of_its_ratings() {
        let texts = sentiment(b"1\t3\tSo  good\n2\t-1\tso good\n3\t0.5\tx\n4\t-0.5\tX\n").unwrap();
        assert_eq!(texts.len(), 1);
        assert_eq!(texts[0].label, "positive");
    }

    #[test]
    fn snippets_of_one_review_stay_in_one_split() {
        let lines = (0..400)
            .map(|i| format!("{}_{}\t1\ttext {i}\n", i / 10, i % 10))
            .collect::<String>();
        let texts = sentiment(lines.as_bytes()).unwrap();
        let number = |text: &Labelled| text.text["text ".len()..].parse::<usize>().unwrap();
        for a in &texts {
            assert!(
                texts
                    .iter()
                    .filter(|b| number(a) / 10 == number(b) / 10)
                    .all(|b| a.split == b.split)
            );
        }
        for split in Split::ALL {
            assert!(texts.iter().any(|text| text.split == split));
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_as_latin1_and_escapes_undone() {
        let texts = sentiment(b"1\t1\tcaf\xe9 &amp;amp; &lt;3\n").unwrap();
        assert_eq!(texts[0].text, "café & <3");
        assert!(
            sentiment(b"1\tgood\tx\n")
                .unwrap_err()
                .to_string()
                .contains("f:1")
        );
    }
}
