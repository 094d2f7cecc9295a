//! Parquet files as data files: a record a row, keys by the names of the columns.

mod pages;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use bytes::Bytes;
use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Map, Value};

use self::pages::Checked;
use super::{DataError, RowPlace, json::Parsed};

/// Whether a file is one: it says so at its beginning, whatever its name.
pub(super) fn is_parquet(path: &Path, bytes: &[u8]) -> bool {
    let named = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    named || bytes.starts_with(b"PAR1")
}

/// An object per row. Where the file carries the names of its classes, as the `datasets` library writes them, a class is its name and not
/// its number. Cells that are no JSON (bytes that are no text, dates) are null.
///
/// # Errors
/// A file that cannot be read, by the library's own words, or a class without a name.
pub(super) fn rows(path: &Path, bytes: &[u8]) -> Result<Vec<Parsed>, DataError> {
    let refuse = |message: String| DataError::File {
        path: path.into(),
        message,
    };
    // The library panics on some of the files that are broken.
    let read = catch_unwind(AssertUnwindSafe(|| objects(Bytes::copy_from_slice(bytes))));
    read.map_err(|_| refuse("the Parquet file is broken".into()))?
        .map_err(|error| {
            refuse(format!(
                "not a Parquet file that can be read: {error}; with pandas, `to_json(orient=\"records\", lines=True)` writes it as .jsonl"
            ))
        })
}

fn objects(bytes: Bytes) -> Result<Vec<Parsed>, ParquetError> {
    let file = SerializedFileReader::new(bytes)?;
    let classes = classes(&file);
    let file = Checked(file);
    let mut rows = Vec::new();
    let mut bytes = 0;
    for (index, row) in file.get_row_iter(None)?.enumerate() {
        let mut object = object(&row?);
        bytes += object
            .iter()
            .map(|(key, it)| key.len() + size(it))
            .sum::<usize>();
        if index >= MAX_ROWS || bytes > MAX_BYTES {
            return Err(ParquetError::General(format!(
                "more than {MAX_ROWS} rows or {MAX_BYTES} bytes once it is unpacked"
            )));
        }
        let named = classes
            .iter()
            .try_for_each(|(key, names)| name_class(&mut object, key, names));
        rows.push((RowPlace::Row(index + 1), named.map(|()| object)));
    }
    Ok(rows)
}

/// Most rows of a file: a kilobyte may say that it holds billions.
const MAX_ROWS: usize = 2 << 20;
/// Most bytes of all cells of a file, unpacked.
const MAX_BYTES: usize = 1 << 30;

/// About the bytes that a value takes.
fn size(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(key, it)| key.len() + size(it)).sum(),
        _ => 0,
    };
    size_of::<Value>() + inside
}

/// Names of the classes by their column, from the features that the `datasets` library writes into its files.
fn classes(file: &SerializedFileReader<Bytes>) -> HashMap<String, Vec<String>> {
    let metadata = file.metadata().file_metadata().key_value_metadata();
    let written = metadata.into_iter().flatten();
    let features = written
        .filter(|entry| entry.key == "huggingface")
        .find_map(|entry| serde_json::from_str::<Value>(entry.value.as_deref()?).ok());
    let features = features.as_ref().map(|it| &it["info"]["features"]);
    let columns = features.and_then(Value::as_object).into_iter().flatten();
    let named = columns.filter_map(|(key, feature)| {
        let names = feature["names"].as_array()?.iter();
        let names: Option<Vec<String>> = names.map(|it| it.as_str().map(str::to_owned)).collect();
        Some((key.clone(), names?))
    });
    named.collect()
}

fn name_class(object: &mut Map<String, Value>, key: &str, names: &[String]) -> Result<(), String> {
    let Some(class) = object.get_mut(key).filter(|it| it.is_number()) else {
        return Ok(());
    };
    let index = class.as_u64().and_then(|it| usize::try_from(it).ok());
    let name = index.and_then(|it| names.get(it)).ok_or_else(|| {
        format!(
            "`{key}` is the class {class}, and the file names the classes 0 to {}; -1 is a row without one",
            names.len().saturating_sub(1)
        )
    })?;
    *class = name.as_str().into();
    Ok(())
}

fn object(row: &Row) -> Map<String, Value> {
    let columns = row.get_column_iter();
    columns
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Bool(it) => (*it).into(),
        Field::Byte(it) => (*it).into(),
        Field::Short(it) => (*it).into(),
        Field::Int(it) => (*it).into(),
        Field::Long(it) => (*it).into(),
        Field::UByte(it) => (*it).into(),
        Field::UShort(it) => (*it).into(),
        Field::UInt(it) => (*it).into(),
        Field::ULong(it) => (*it).into(),
        Field::Float16(it) => it.to_f64().into(),
        Field::Float(it) => (*it).into(),
        Field::Double(it) => (*it).into(),
        Field::Str(it) => it.as_str().into(),
        // Writers that leave out that a column is text.
        Field::Bytes(it) => it.as_utf8().map_or(Value::Null, Value::from),
        Field::Group(row) => object(row).into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            let text = |key: &Field| match key {
                Field::Str(key) => key.clone(),
                other => other.to_string(),
            };
            Value::Object(entries.map(|(key, it)| (text(key), value(it))).collect())
        }
        Field::Null
        | Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Record, read};

    use super::*;

    fn records(name: &str) -> Vec<Record> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/fixtures");
        let rows = read(&path.join(name), None).unwrap();
        rows.into_iter().map(|row| row.record).collect()
    }

    fn of_lines(lines: &str) -> Vec<Record> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, lines).unwrap();
        let rows = read(&path, None).unwrap();
        rows.into_iter().map(|row| row.record).collect()
    }

    #[test]
    fn rows_are_the_records_that_lines_are() {
        for (name, lines) in [
            (
                "classes.parquet",
                r#"{"text": "x", "label": "a"}
{"text": "y\nz", "label": "b"}"#,
            ),
            (
                "messages.parquet",
                r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#,
            ),
            (
                "answers.parquet",
                r#"{"prompt": "q0", "answer": "a0"}
{"prompt": "q1", "answer": "a1"}
{"prompt": "q2", "answer": "a2"}
{"prompt": "q3", "answer": "a3"}
{"prompt": "q4", "answer": "a4"}"#,
            ),
        ] {
            assert_eq!(records(name), of_lines(lines), "{name}");
        }
    }

    #[test]
    fn a_class_without_a_name_is_refused() {
        let mut row = Map::from_iter([("label".to_owned(), (-1).into())]);
        let names = ["a".to_owned(), "b".to_owned()];
        let message = name_class(&mut row, "label", &names).unwrap_err();
        assert!(message.contains("the class -1") && message.contains("0 to 1"));
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let whole = include_bytes!("../fixtures/messages.parquet");
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            cut.extend_from_slice(&whole[whole.len() - 8..]);
            for bytes in [&whole[..length], &cut] {
                if let Err(error) = rows(Path::new("a.parquet"), bytes) {
                    assert!(error.to_string().starts_with("a.parquet: "), "{error}");
                }
            }
        }
    }
}
