//! What is in a data file: the answer of `moe-cl data check`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::{Path, PathBuf},
};

use moe_core::tokenizer::Tokenizer;
use serde::{Serialize, Serializer};

use super::{DataError, Record, rows};

/// Refused records that are shown one by one; the rest is counted.
const SHOWN: usize = 20;

/// What is in a data file.
#[derive(Debug, Serialize)]
pub struct DataReport {
    /// The file.
    pub path: PathBuf,
    /// Records that can be used.
    pub records: usize,
    /// Records that are refused.
    #[serde(serialize_with = "as_text")]
    pub refused: Vec<DataError>,
    /// Records per label; instruction records have none.
    pub labels: BTreeMap<String, usize>,
    /// Records whose text is that of an earlier one.
    pub duplicates: usize,
    /// Of these, the ones that have another label than the earlier one.
    pub contradictions: usize,
    /// Shortest, median and longest text, in characters.
    pub characters: Option<[usize; 3]>,
    /// Shortest, median and longest text in tokens, where a tokenizer was given.
    pub tokens: Option<[usize; 3]>,
}

fn as_text<S: Serializer>(errors: &[DataError], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(errors.iter().map(ToString::to_string))
}

impl DataReport {
    /// Reads a file to the end, refused records included.
    ///
    /// # Errors
    /// A file that cannot be read or is refused as a whole, or a text that the tokenizer refuses.
    pub fn new(path: &Path, tokenizer: Option<&Tokenizer>) -> Result<Self, DataError> {
        let (mut labels, mut seen) = (BTreeMap::new(), HashMap::new());
        let (mut characters, mut tokens, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let (mut duplicates, mut contradictions) = (0, 0);
        for row in rows(path)? {
            let (text, answer, named) = match row.map(|row| row.record) {
                Ok(Record::Classification { text, label }) => (text, label, true),
                Ok(Record::Instruction { prompt, answer }) => (
                    prompt
                        .into_iter()
                        .map(|turn| turn.text)
                        .collect::<Vec<_>>()
                        .join("\n"),
                    answer,
                    false,
                ),
                Err(error) => {
                    refused.push(error);
                    continue;
                }
            };
            characters.push(text.chars().count());
            if let Some(tokenizer) = tokenizer {
                let encoded =
                    tokenizer
                        .encode_text(&text, true)
                        .map_err(|error| DataError::Encoding {
                            task: path.display().to_string(),
                            error,
                        })?;
                tokens.push(encoded.len());
            }
            if named {
                *labels.entry(answer.clone()).or_insert(0) += 1;
            }
            if let Some(earlier) = seen.get(&text) {
                duplicates += 1;
                contradictions += usize::from(*earlier != answer);
            } else {
                seen.insert(text, answer);
            }
        }
        Ok(Self {
            path: path.into(),
            records: characters.len(),
            refused,
            labels,
            duplicates,
            contradictions,
            characters: spread(characters),
            tokens: spread(tokens),
        })
    }
}

fn spread(mut lengths: Vec<usize>) -> Option<[usize; 3]> {
    lengths.sort_unstable();
    Some([
        *lengths.first()?,
        lengths[lengths.len() / 2],
        *lengths.last()?,
    ])
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} records, {} refused",
            self.path.display(),
            self.records,
            self.refused.len()
        )?;
        for (label, count) in &self.labels {
            writeln!(f, "  {count:>7}  {label}")?;
        }
        for (unit, lengths) in [("characters", self.characters), ("tokens", self.tokens)] {
            if let Some([shortest, median, longest]) = lengths {
                writeln!(
                    f,
                    "  {unit} per text: {shortest} to {longest}, median {median}"
                )?;
            }
        }
        if self.duplicates > 0 {
            writeln!(
                f,
                "  {} texts are there more than once, {} of them with another label",
                self.duplicates, self.contradictions
            )?;
        }
        for error in self.refused.iter().take(SHOWN) {
            writeln!(f, "  refused: {error}")?;
        }
        let more = self.refused.len().saturating_sub(SHOWN);
        if more > 0 {
            writeln!(f, "  and {more} more refused")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_every_record_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let rows = [
            r#"{"text":"é","label":"a"}"#,
            r#"{"text":"é","label":"b"}"#,
            "{}",
            r#"{"text":"four","label":"a"}"#,
        ];
        std::fs::write(&path, rows.join("\n")).unwrap();
        let report = DataReport::new(&path, None).unwrap();
        assert_eq!(
            (
                report.records,
                report.refused.len(),
                report.duplicates,
                report.contradictions
            ),
            (3, 1, 1, 1)
        );
        assert_eq!(
            report.labels.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), 2), ("b".to_owned(), 1)]
        );
        assert_eq!(report.characters, Some([1, 1, 4]));
    }
}
