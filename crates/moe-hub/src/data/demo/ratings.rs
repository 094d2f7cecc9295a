//! From rated snippets to labelled, split texts.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::error::{Result, SourceError};

/// Texts whose mean rating is nearer to zero than this are dropped: half a step on the raters' scale, on which
/// −1 and 1 are the weakest opinions, so what remains leans clearly to one side.
const NEUTRAL: f64 = 0.5;

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
    pub(super) positive: bool,
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
pub(super) fn label(file: &str, bytes: &[u8]) -> Result<Vec<Labelled>> {
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
    let mut kept = texts
        .into_iter()
        .filter(|(_, rated)| rated.mean().abs() >= NEUTRAL)
        .map(|(key, rated)| {
            let labelled = Labelled {
                positive: rated.mean() > 0.0,
                split: Split::of(&rated.group),
                text: rated.text,
            };
            (hash(&key), labelled)
        })
        .collect::<Vec<_>>();
    kept.sort_by_key(|(order, _)| *order);
    Ok(kept.into_iter().map(|(_, labelled)| labelled).collect())
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

    #[test]
    fn the_mean_rating_decides_and_near_zero_is_dropped() {
        let texts = label("f", b"1\t2.0\tgood\r\n2\t-0.5\tbad\r\n3\t0.49\tmeh\r\n").unwrap();
        let mut found = texts
            .iter()
            .map(|text| (text.text.as_str(), text.positive))
            .collect::<Vec<_>>();
        found.sort_unstable();
        assert_eq!(found, [("bad", false), ("good", true)]);
    }

    #[test]
    fn the_same_text_counts_once_with_the_mean_of_its_ratings() {
        let texts = label(
            "f",
            b"1\t3\tSo  good\n2\t-1\tso good\n3\t0.5\tx\n4\t-0.5\tX\n",
        )
        .unwrap();
        assert_eq!(texts.len(), 1);
        assert!(texts[0].positive);
    }

    #[test]
    fn snippets_of_one_review_stay_in_one_split() {
        let lines = (0..400)
            .map(|i| format!("{}_{}\t1\ttext {i}\n", i / 10, i % 10))
            .collect::<String>();
        let texts = label("f", lines.as_bytes()).unwrap();
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
        let texts = label("f", b"1\t1\tcaf\xe9 &amp;amp; &lt;3\n").unwrap();
        assert_eq!(texts[0].text, "café & <3");
        assert!(
            label("f", b"1\tgood\tx\n")
                .unwrap_err()
                .to_string()
                .contains("f:1")
        );
    }
}
