//! JSON objects as data files have them: one a line (JSON Lines), or the one array that the MoE-CL authors use (`.json`).

use std::{fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::{DataError, RowPlace};

/// What stands at a place: an object, or why there is none.
pub(super) type Parsed = (RowPlace, Result<Map<String, Value>, String>);

/// An object a line; blank lines are skipped.
pub(super) fn lines(bytes: &[u8]) -> Vec<Parsed> {
    each_line(bytes, object)
}

fn each_line(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<Map<String, Value>, String>,
) -> Vec<Parsed> {
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let written = lines
        .map(|(index, line)| (RowPlace::Line(index + 1), line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty());
    written.map(|(place, line)| (place, read(line))).collect()
}

/// A text a line, as objects that have one; blank lines are skipped.
pub(super) fn text_lines(bytes: &[u8]) -> Vec<Parsed> {
    let text = |line: &[u8]| {
        let text = str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
        Ok(Map::from_iter([("text".to_owned(), text.into())]))
    };
    each_line(bytes, text)
}

fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    let line = str::from_utf8(line).map_err(|error| {
        format!(
            "invalid UTF-8 at byte {} of the line",
            error.valid_up_to() + 1
        )
    })?;
    let refuse = |error: serde_json::Error| {
        let (message, column) = (bare(&error), error.column());
        format!("not one JSON object: {message}, column {column}")
    };
    match serde_json::from_str(line).map_err(refuse)? {
        Unique(Value::Object(map)) => Ok(map),
        Unique(other) => Err(format!("not one JSON object: {other}")
            .chars()
            .take(80)
            .collect()),
    }
}

/// The entries of one array.
///
/// # Errors
/// When the file is not named `.json`, or the array is broken.
pub(super) fn entries(path: &Path, bytes: &[u8]) -> Result<Vec<Parsed>, DataError> {
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
    let entries: Vec<Unique> = serde_json::from_slice(bytes).map_err(|error| {
        let (message, column) = (bare(&error), error.column());
        let message = format!("not a JSON array of objects: {message}, column {column}");
        refuse(error.line(), message)
    })?;
    let numbered = entries.into_iter().enumerate();
    Ok(numbered
        .map(|(index, Unique(entry))| {
            let object = match entry {
                Value::Object(map) => Ok(map),
                other => Err(format!("not an object: {other}").chars().take(80).collect()),
            };
            (RowPlace::Entry(index + 1), object)
        })
        .collect())
}

/// The message without the position that serde_json appends, which counts from the start of what it was given.
fn bare(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message
        .rsplit_once(" at line ")
        .map_or(message.clone(), |(message, _)| message.to_owned())
}

/// A JSON value in which no object has a key twice.
pub(super) struct Unique(pub Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys).map(Self)
    }
}

struct UniqueKeys;

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` is there twice")));
            }
            let Unique(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}
