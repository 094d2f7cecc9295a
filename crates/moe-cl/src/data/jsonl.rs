//! Reading data files: JSON Lines, and the one JSON array that the MoE-CL authors use (`.json`).

use std::{fmt, fs, io::Read, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{DataError, Format, Record, RowPlace};

/// A record and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its line or entry.
    pub place: RowPlace,
    /// The record.
    pub record: Record,
}

/// Reads all records of a file; where `labels` are given, every label must be one of them.
///
/// # Errors
/// What [`rows`] refuses, the first record that is refused, or a label that is unknown.
pub fn read(path: &Path, labels: Option<&[String]>) -> Result<Vec<Row>, DataError> {
    let rows = rows(path)?
        .into_iter()
        .collect::<Result<Vec<Row>, DataError>>()?;
    if let Some(labels) = labels {
        check_labels(path, &rows, labels)?;
    }
    Ok(rows)
}

/// # Errors
/// The first record whose label or answer is not among `labels`.
pub(super) fn check_labels(path: &Path, rows: &[Row], labels: &[String]) -> Result<(), DataError> {
    for row in rows {
        let label = row.record.answer();
        if !labels.iter().any(|known| known == label) {
            let message = format!(
                "unknown label `{label}`; the labels are {}",
                labels.join(", ")
            );
            return Err(DataError::Record {
                path: path.into(),
                place: row.place,
                message,
            });
        }
    }
    Ok(())
}

/// Reads all records of a file, each refused or accepted on its own. Blank lines are skipped, as is a byte order mark.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 at all, is a broken array, or has no records.
pub fn rows(path: &Path) -> Result<Vec<Result<Row, DataError>>, DataError> {
    let mut bytes = Vec::new();
    let opened = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    opened.map_err(|error| DataError::Unreadable {
        path: path.into(),
        error,
    })?;
    let refuse = |message: &str| DataError::File {
        path: path.into(),
        message: message.into(),
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(refuse("the file is UTF-16; save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let array = bytes.trim_ascii_start().starts_with(b"[");
    let objects: Vec<Parsed> = if array {
        entries(path, bytes)?
    } else {
        lines(bytes)
    };
    if objects.is_empty() {
        return Err(refuse("the file has no records"));
    }

    let mut format = None;
    let mut rows = Vec::with_capacity(objects.len());
    for (place, object) in objects {
        let record = object.and_then(|Object(object)| {
            let format = match format {
                Some(format) => format,
                None => *format.insert(Format::detect(&object)?),
            };
            format.read(&object)
        });
        rows.push(match record {
            Ok(record) => Ok(Row { place, record }),
            Err(message) => Err(DataError::Record {
                path: path.into(),
                place,
                message,
            }),
        });
    }
    Ok(rows)
}

fn lines(bytes: &[u8]) -> Vec<Parsed> {
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let written = lines
        .map(|(index, line)| (RowPlace::Line(index + 1), line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty());
    written.map(|(place, line)| (place, object(line))).collect()
}

fn object(line: &[u8]) -> Result<Object, String> {
    let line = str::from_utf8(line).map_err(|error| {
        format!(
            "invalid UTF-8 at byte {} of the line",
            error.valid_up_to() + 1
        )
    })?;
    serde_json::from_str(line).map_err(|error| {
        format!(
            "not one JSON object: {}, column {}",
            bare(&error),
            error.column()
        )
    })
}

fn entries(path: &Path, bytes: &[u8]) -> Result<Vec<Parsed>, DataError> {
    let refuse = |line: usize, message: String| DataError::Record {
        path: path.into(),
        place: RowPlace::Line(line),
        message,
    };
    if path.extension().is_none_or(|extension| extension != "json") {
        return Err(refuse(
            1,
            "one JSON array, not JSON Lines: write one object a line, or name the file .json"
                .into(),
        ));
    }
    let entries: Vec<Entry> = serde_json::from_slice(bytes).map_err(|error| {
        refuse(
            error.line(),
            format!(
                "not a JSON array of objects: {}, column {}",
                bare(&error),
                error.column()
            ),
        )
    })?;
    let numbered = entries.into_iter().enumerate();
    Ok(numbered
        .map(|(index, entry)| (RowPlace::Entry(index + 1), entry.0))
        .collect())
}

/// The message without the position that serde_json appends, which counts from the start of what it was given.
fn bare(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message
        .rsplit_once(" at line ")
        .map_or(message.clone(), |(message, _)| message.to_owned())
}

/// What stands at a place: an object, or why there is none.
type Parsed = (RowPlace, Result<Object, String>);

/// A JSON object in which no key is there twice.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
                let mut map = Map::new();
                while let Some(key) = access.next_key::<String>()? {
                    if map.contains_key(&key) {
                        return Err(A::Error::custom(format!("the key `{key}` is there twice")));
                    }
                    map.insert(key, access.next_value()?);
                }
                Ok(Object(map))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// An entry of an array: an object, or what it is instead.
struct Entry(Result<Object, String>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Object(map) => Ok(Object(map)),
            other => Err(format!("not an object: {other}").chars().take(80).collect()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[track_caller]
    fn refused(name: &str, bytes: &[u8], words: &[&str]) {
        let (_folder, path) = file(name, bytes);
        let message = read(&path, Some(&["a".into(), "b".into()]))
            .expect_err("refused")
            .to_string();
        for word in words {
            assert!(message.contains(word), "{message} lacks {word}");
        }
    }

    const ROW: &str = r#"{"text": "x", "label": "a"}"#;

    #[test]
    fn line_ends_blank_lines_and_byte_order_marks_are_no_part_of_a_record() {
        let plain = format!("{ROW}\n{ROW}\n");
        let (_folder, path) = file("a.jsonl", plain.as_bytes());
        let want: Vec<Record> = read(&path, None)
            .unwrap()
            .into_iter()
            .map(|row| row.record)
            .collect();
        for text in [
            format!("{ROW}\r\n\r\n{ROW}"),
            format!("\u{feff}{ROW}\n \n\n{ROW}\n\n"),
        ] {
            let (_folder, path) = file("a.jsonl", text.as_bytes());
            let got: Vec<Record> = read(&path, None)
                .unwrap()
                .into_iter()
                .map(|row| row.record)
                .collect();
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn an_array_is_read_as_the_same_records_and_only_from_a_json_file() {
        let array = br#"[{"sentence": "x", "label": "a"}, {"text": "x", "label": "a"}]"#;
        let (_folder, path) = file("a.json", array);
        let rows = read(&path, None).unwrap();
        assert_eq!(
            (rows[0].record.clone(), rows[1].place),
            (rows[1].record.clone(), RowPlace::Entry(2))
        );
        refused("a.jsonl", array, &["a.jsonl:1:", "JSON array"]);
        refused(
            "a.json",
            br#"[{"text": "x", "label": "a"}, 3]"#,
            &["entry 2", "not an object"],
        );
        refused("a.json", br#"[{"text": "x""#, &["a.json:1:"]);
    }

    #[test]
    fn every_refusal_names_its_line() {
        for (line, word) in [
            (r#"{"label": "a"}"#, "no `text`"),
            (r#"{"text": "x"}"#, "no `label`"),
            (r#"{"text": "x", "label": 1}"#, "not a number"),
            (r#"{"text": null, "label": "a"}"#, "not null"),
            (r#"{"text": "  ", "label": "a"}"#, "`text` is empty"),
            (r#"{"text": "x", "label": "A"}"#, "unknown label `A`"),
            (r#"{"text": "x", "text": "y", "label": "a"}"#, "twice"),
            (r#"{"text": "\ud800", "label": "a"}"#, "not one JSON object"),
            (r#"{"text": "x", "label": "a"} {}"#, "trailing"),
            (r#"{"text": "x", "#, "EOF"),
            ("7", "not one JSON object"),
        ] {
            refused(
                "a.jsonl",
                format!("{ROW}\n\n{line}\n{ROW}\n").as_bytes(),
                &["a.jsonl:3: ", word],
            );
        }
        refused(
            "a.jsonl",
            b"{\"text\": \"\xff\", \"label\": \"a\"}\n",
            &["a.jsonl:1: ", "UTF-8"],
        );
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let deep = format!(
            r#"{{"text": "x", "label": "a", "more": {}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        refused(
            "a.jsonl",
            format!("{ROW}\n{deep}").as_bytes(),
            &["a.jsonl:2: "],
        );
        refused("a.json", format!("[{deep}]").as_bytes(), &["a.json:1: "]);
    }

    #[test]
    fn a_file_without_records_is_refused() {
        for (name, bytes) in [
            ("a.jsonl", &b""[..]),
            ("a.jsonl", b"\n\n"),
            ("a.json", b"[]"),
            ("a.jsonl", b"\xef\xbb\xbf"),
        ] {
            refused(name, bytes, &["no records"]);
        }
        refused("a.jsonl", b"\xff\xfe{\0", &["UTF-16"]);
    }
}
