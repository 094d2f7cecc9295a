//! Tables as data files: a header with the keys of a record, then a record a row (CSV; with tabs, TSV).

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    DataError, RowPlace,
    json::{Parsed, Unique},
};

/// The separator of a file that its name calls a table.
pub(super) fn separator(path: &Path) -> Option<u8> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(b','),
        "tsv" => Some(b'\t'),
        _ => None,
    }
}

/// An object per row, by the line on which it begins. A cell is a text, but for one that holds a JSON list, as conversations do.
///
/// # Errors
/// A header that cannot be read or names a column twice.
pub(super) fn rows(path: &Path, bytes: &[u8], separator: u8) -> Result<Vec<Parsed>, DataError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .from_reader(bytes);
    let refuse = |message: String| DataError::Record {
        path: path.into(),
        place: RowPlace::Line(1),
        message,
    };
    let header = reader
        .headers()
        .map_err(|error| refuse(error.to_string()))?;
    let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(refuse(format!("the column `{name}` is there twice")));
        }
    }
    let mut lines = Lines {
        bytes,
        at: 0,
        line: 1,
    };
    let rows = reader.records().map(|row| match row {
        Ok(row) => {
            let line = lines.of(row.position());
            let cells = row.iter().map(cell);
            let object: Map<String, Value> = names.iter().cloned().zip(cells).collect();
            (RowPlace::Line(line), Ok(object))
        }
        Err(error) => {
            let line = lines.of(error.position());
            (
                RowPlace::Line(line),
                Err(format!("not a row of the table: {error}")),
            )
        }
    });
    Ok(rows.collect())
}

/// The lines of a text, counted once. (The reader's own count leaves out those within quotes.)
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of the first character from `position` on, which is behind those asked for before.
    fn of(&mut self, position: Option<&csv::Position>) -> usize {
        let mut end = position.map_or(self.at, |it| it.byte() as usize);
        let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n');
        while self.bytes.get(end).is_some_and(breaks) {
            end += 1;
        }
        let passed = self.bytes.get(self.at..end).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.at = self.at.max(end);
        self.line
    }
}

fn cell(text: &str) -> Value {
    let list = text.trim_start().starts_with('[');
    let parsed = list
        .then(|| serde_json::from_str::<Unique>(text).ok())
        .flatten();
    parsed.map_or_else(|| text.into(), |Unique(value)| value)
}
