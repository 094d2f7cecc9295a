//! Typed look-ups in a JSON object of settings, whose errors name the file and the key.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The object that `text` is.
pub(super) fn object(text: &str, origin: &Path) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::file(origin, "expected a JSON object of settings")),
        Err(error) => Err(not_json(text, origin, &error)),
    }
}

/// One JSON object and the path to it, for typed look-ups. A `null` counts as absent.
pub(super) struct Keys<'a> {
    pub(super) map: &'a Map<String, Value>,
    origin: &'a Path,
    inside: &'static str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, origin: &'a Path) -> Self {
        Self {
            map,
            origin,
            inside: "",
        }
    }

    pub(super) fn error(&self, key: &str, message: impl Into<String>) -> Error {
        Error::config(self.origin, format!("{}{key}", self.inside), message)
    }

    pub(super) fn missing(&self, key: &str) -> Error {
        self.error(key, "missing; the model cannot be built without it")
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.error(key, format!("expected {expected}, found {found}"))
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| self.wrong(key, expected, value))
    }

    pub(super) fn usize(&self, key: &str) -> Result<Option<usize>> {
        let read = |value: &Value| value.as_u64().and_then(|n| n.try_into().ok());
        self.typed(key, "a whole number of at least 0", read)
    }

    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn required_usize(&self, key: &str) -> Result<usize> {
        self.usize(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn required_f64(&self, key: &str) -> Result<f64> {
        self.f64(key)?.ok_or_else(|| self.missing(key))
    }

    /// A token id; early Llama conversions write −1 for "none".
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>> {
        if self.get(key).and_then(Value::as_i64) == Some(-1) {
            return Ok(None);
        }
        self.typed(key, "a token id", token_id)
    }

    /// A token id or a list of them.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let read = |value: &Value| match value {
            Value::Array(ids) => ids.iter().map(token_id).collect(),
            one => token_id(one).map(|id| vec![id]),
        };
        Ok(self
            .typed(key, "a token id or a list of token ids", read)?
            .unwrap_or_default())
    }

    /// A list of whole numbers; empty where there is none.
    pub(super) fn usizes(&self, key: &str) -> Result<Vec<usize>> {
        let one = |value: &Value| value.as_u64().and_then(|n| n.try_into().ok());
        let read = |value: &Value| value.as_array()?.iter().map(one).collect();
        let list = self.typed(key, "a list of whole numbers of at least 0", read)?;
        Ok(list.unwrap_or_default())
    }

    pub(super) fn section(&self, key: &'static str) -> Result<Option<Keys<'a>>> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Keys {
            map,
            origin: self.origin,
            inside: match key {
                "rope_scaling" => "rope_scaling.",
                _ => "rope_parameters.",
            },
        }))
    }
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| id.try_into().ok())
}

/// A syntax error, with the key it stands behind when there is one (`"rms_norm_eps": NaN`).
fn not_json(text: &str, origin: &Path, error: &serde_json::Error) -> Error {
    if text.trim().is_empty() {
        return Error::file(origin, "the file is blank; expected a JSON object");
    }
    let message = format!("not valid JSON: {error}");
    let line_start = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum::<usize>();
    let before = text.get(..line_start + error.column().saturating_sub(1));
    let key = before.and_then(|before| {
        let (head, tail) = before.rsplit_once(':')?;
        let clean = |c: char| c.is_alphanumeric() || c.is_whitespace() || "+-.".contains(c);
        let quoted = head.trim_end().strip_suffix('"')?;
        let (_, key) = quoted.rsplit_once('"')?;
        tail.chars().all(clean).then_some(key)
    });
    match key {
        Some(key) => Error::config(origin, key, message),
        None => Error::file(origin, message),
    }
}
