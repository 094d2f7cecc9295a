//! Records of data files, whatever their format.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use moe_core::plain_file;
use serde_json::{Map, Value};

use super::{
    DataError, Format, Record, RowPlace,
    json::{self, Parsed},
    parquet, table,
};

/// A record and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its file and its line or entry there; none where it was kept with a model.
    pub place: Option<(Arc<Path>, RowPlace)>,
    /// The record.
    pub record: Record,
}

impl Row {
    /// One that is in no file.
    pub fn kept(record: Record) -> Self {
        let place = None;
        Self { place, record }
    }

    /// An error that names its place, or where it has none the `task`.
    pub fn refuse(&self, message: String, task: &str) -> DataError {
        match &self.place {
            Some((path, place)) => DataError::Record {
                path: path.to_path_buf(),
                place: *place,
                message,
            },
            None => DataError::Task {
                task: task.into(),
                message,
            },
        }
    }
}

/// Reads all records of a file; where `labels` are given, every label must be one of them.
///
/// # Errors
/// What [`rows`] refuses, the first record that is refused, or a label that is unknown.
pub fn read(path: &Path, labels: Option<&[String]>) -> Result<Vec<Row>, DataError> {
    Ok(read_with_keys(path, labels)?.0)
}

/// As [`read`], with the keys of the first records that are passed over.
///
/// # Errors
/// As [`read`].
pub(super) fn read_with_keys(
    path: &Path,
    labels: Option<&[String]>,
) -> Result<(Vec<Row>, BTreeSet<String>), DataError> {
    let objects = objects_of(path)?;
    let keys = passed_over(&objects);
    let rows = records(path, objects, Format::read)?
        .into_iter()
        .collect::<Result<Vec<Row>, DataError>>()?;
    if let Some(labels) = labels {
        check_labels(&rows, labels)?;
    }
    Ok((rows, keys))
}

/// # Errors
/// The first record whose label or answer is not among `labels`.
pub(super) fn check_labels(rows: &[Row], labels: &[String]) -> Result<(), DataError> {
    for row in rows {
        let label = row.record.answer();
        if !labels.iter().any(|known| known == label) {
            let message = format!(
                "unknown label `{label}`; the labels are {}",
                labels.join(", ")
            );
            return Err(row.refuse(message, "kept"));
        }
    }
    Ok(())
}

/// Reads all records of a file, each refused or accepted on its own: JSON Lines, one JSON array (`.json`), or a table (`.csv`,
/// `.tsv`, Parquet).
/// Blank lines are skipped, as is a byte order mark.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 at all, is a broken array or table, or has no records.
pub fn rows(path: &Path) -> Result<Vec<Result<Row, DataError>>, DataError> {
    records(path, objects_of(path)?, Format::read)
}

fn objects_of(path: &Path) -> Result<Vec<Parsed>, DataError> {
    let bytes = plain_file::read(path, MAX_FILE).map_err(|error| DataError::Unreadable {
        path: path.into(),
        error,
    })?;
    objects(path, &bytes)
}

/// Keys of a file's first records that [`records`] passes over.
fn passed_over(objects: &[Parsed]) -> BTreeSet<String> {
    let looked_at = objects.iter().take(LOOKED_AT);
    let mut keys = BTreeSet::new();
    for object in looked_at.filter_map(|(_, object)| object.as_ref().ok()) {
        if let Ok(format) = Format::detect(object) {
            keys.extend(format.passed_over(object).map(str::to_owned));
        }
    }
    keys
}

/// Records whose keys are looked at.
const LOOKED_AT: usize = 100;

/// Reads texts that are to be answered, from a file as [`rows`] reads it, or one a line; `-` is standard input. What they hold of labels
/// and answers is passed over.
///
/// # Errors
/// As [`rows`], and the first record that is refused.
pub fn new_texts(path: &Path) -> Result<Vec<Record>, DataError> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => read_all(std::io::stdin().lock(), &mut bytes),
        false => plain_file::read(path, MAX_FILE).map(|file| bytes = file),
    };
    read.map_err(|error| DataError::Unreadable {
        path: path.into(),
        error,
    })?;
    let table = table::separator(path).is_some() || parquet::is_parquet(path, &bytes);
    let objects = match table || is_json(&bytes) {
        true => objects(path, &bytes)?,
        false => json::text_lines(&bytes),
    };
    let rows = records(path, objects, Format::read_unanswered)?;
    rows.into_iter().map(|row| Ok(row?.record)).collect()
}

/// Longest data file, in bytes: it is held in memory.
const MAX_FILE: u64 = 4 << 30;

/// All of a pipe, which may have no end.
fn read_all(pipe: impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    let read = pipe.take(MAX_FILE + 1).read_to_end(bytes)? as u64;
    match read > MAX_FILE {
        true => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("standard input has more than {MAX_FILE} bytes"),
        )),
        false => Ok(()),
    }
}

/// Whether the first character begins an object or an array of objects.
fn is_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let bytes = bytes.trim_ascii_start();
    let array = bytes.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    bytes.starts_with(b"{") || array.is_some_and(|it| it.starts_with(b"{"))
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn objects(path: &Path, bytes: &[u8]) -> Result<Vec<Parsed>, DataError> {
    let refuse = |message: &str| DataError::File {
        path: path.into(),
        message: message.into(),
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(refuse("the file is UTF-16; save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let objects = match table::separator(path) {
        _ if parquet::is_parquet(path, bytes) => parquet::rows(path, bytes)?,
        Some(separator) => table::rows(path, bytes, separator)?,
        None if bytes.trim_ascii_start().starts_with(b"[") => json::entries(path, bytes)?,
        None => json::lines(bytes),
    };
    match objects.is_empty() {
        true => Err(refuse("the file has no records")),
        false => Ok(objects),
    }
}

type Rows = Vec<Result<Row, DataError>>;

/// The records that objects are, all in the format of the first.
fn records(
    path: &Path,
    objects: Vec<Parsed>,
    read: impl Fn(Format, &Map<String, Value>) -> Result<Record, String>,
) -> Result<Rows, DataError> {
    let file: Arc<Path> = path.into();
    let mut format = None;
    let rows = objects.into_iter().map(|(place, object)| {
        let record = object.and_then(|object| {
            let format = match format {
                Some(format) => format,
                None => *format.insert(Format::detect(&object)?),
            };
            read(format, &object)
        });
        match record {
            Ok(record) => Ok(Row {
                place: Some((file.clone(), place)),
                record,
            }),
            Err(message) => Err(DataError::Record {
                path: path.into(),
                place,
                message,
            }),
        }
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

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
            (rows[0].record.clone(), rows[1].place.clone()),
            (
                rows[1].record.clone(),
                Some((path.as_path().into(), RowPlace::Entry(2)))
            )
        );
        refused("a.jsonl", array, &["a.jsonl:1:", "JSON array"]);
        refused(
            "a.json",
            br#"[{"text": "x", "label": "a"}, 3]"#,
            &["entry 2", "not an object"],
        );
        refused("a.json", br#"[{"text": "x""#, &["a.json:1:"]);
        refused(
            "a.json",
            br#"[{"text": "x", "label": "a", "text": "y"}]"#,
            &["a.json:1:", "`text` is there twice"],
        );
    }

    #[test]
    fn a_table_is_read_as_the_same_records() {
        let (_folder, lines) = file(
            "a.jsonl",
            br#"{"text": "x, \"y\"\nz", "label": "a"}
{"text": "w", "label": "b"}"#,
        );
        let want = read(&lines, None).unwrap();
        for (name, bytes) in [
            (
                "a.csv",
                &b"\xef\xbb\xbftext,label\n\"x, \"\"y\"\"\nz\",a\r\nw,b\n"[..],
            ),
            ("a.tsv", b"label\ttext\na\t\"x, \"\"y\"\"\nz\"\nb\tw\n"),
        ] {
            let (_folder, path) = file(name, bytes);
            let got = read(&path, None).unwrap();
            let records = |rows: &[Row]| {
                rows.iter()
                    .map(|row| row.record.clone())
                    .collect::<Vec<_>>()
            };
            assert_eq!(records(&got), records(&want), "{name}");
            assert_eq!(
                got[1].place.as_ref().map(|it| it.1),
                Some(RowPlace::Line(4))
            );
        }
        let messages = r#"messages
"[{""role"": ""user"", ""content"": ""q""}, {""role"": ""assistant"", ""content"": ""w""}]"
"#;
        let (_folder, path) = file("a.csv", messages.as_bytes());
        assert_eq!(read(&path, None).unwrap()[0].record.answer(), "w");
        refused("a.csv", b"text,label\nx\n", &["a.csv:2:"]);
        refused("a.csv", b"text,text\nx,y\n", &["a.csv:1:", "twice"]);
        refused(
            "a.csv",
            b"text,label\nx,\n",
            &["a.csv:2:", "`label` is empty"],
        );
    }

    #[test]
    fn new_texts_need_no_label_and_may_be_lines() {
        for (name, bytes) in [
            ("a.txt", &b"one\n\ntwo [2]\n"[..]),
            (
                "a.jsonl",
                b"{\"text\": \"one\"}\n{\"text\": \"two [2]\", \"label\": \"a\"}",
            ),
            ("a.csv", b"text\none\ntwo [2]\n"),
        ] {
            let (_folder, path) = file(name, bytes);
            let texts: Vec<String> = new_texts(&path)
                .unwrap()
                .iter()
                .map(Record::bare_text)
                .collect();
            assert_eq!(texts, ["one", "two [2]"], "{name}");
        }
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
