//! The text of an experiment file and its overrides, as one tree in which every value knows where it was given.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{ConfigError, KeyPlace};

/// The texts behind a [`Document`]. Overrides are given the character ranges after the file's, so that one
/// number says where a value comes from.
pub(super) struct Sources {
    path: PathBuf,
    text: String,
    sets: Vec<Override>,
}

struct Override {
    /// As it was written, `a.b=c`.
    written: String,
    /// The keys, `["a", "b"]`.
    keys: Vec<String>,
    /// The range of the value in [`padded`](Self::padded).
    range: Range<usize>,
    /// A TOML document `v = value` after as many blank lines as give the value its range.
    padded: String,
}

const VALUE: &str = "v = ";

impl Sources {
    /// # Errors
    /// An override without `=` or with an empty key.
    pub(super) fn new(text: &str, path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let mut sources = Self {
            path: path.into(),
            text: text.into(),
            sets: Vec::new(),
        };
        let mut start = text.len() + VALUE.len() + 1;
        for written in sets {
            let refuse = |message: &str| ConfigError::Refused {
                place: KeyPlace::Set(written.clone()),
                message: message.into(),
            };
            let (keys, value) = written
                .split_once('=')
                .ok_or_else(|| refuse("an override is written key.path=value"))?;
            let keys: Vec<String> = keys.split('.').map(|key| key.trim().to_owned()).collect();
            if keys.iter().any(String::is_empty) {
                return Err(refuse(
                    "a key is empty; an override is written key.path=value",
                ));
            }
            let value = if bare(value) {
                toml::Value::String(value.trim().into()).to_string()
            } else {
                value.into()
            };
            let range = start..start + value.len().max(1);
            let padded = format!("{}{VALUE}{value}", "\n".repeat(start - VALUE.len()));
            start = range.end + VALUE.len() + 1;
            sources.sets.push(Override {
                written: written.clone(),
                keys,
                range,
                padded,
            });
        }
        Ok(sources)
    }

    /// Where a range of characters stands.
    pub(super) fn place(&self, range: &Range<usize>) -> KeyPlace {
        if let Some(set) = self
            .sets
            .iter()
            .rev()
            .find(|set| set.range.start <= range.start)
        {
            return KeyPlace::Set(set.written.clone());
        }
        let before = self
            .text
            .get(..range.start.min(self.text.len()))
            .unwrap_or_default();
        let (lines, last) = before
            .rsplit_once('\n')
            .map_or((0, before), |(head, last)| {
                (head.matches('\n').count() + 1, last)
            });
        KeyPlace::File {
            path: self.path.clone(),
            line: lines + 1,
            column: last.chars().count() + 1,
        }
    }

    fn refuse(&self, error: &toml::de::Error) -> ConfigError {
        let place = error.span().map_or_else(
            || KeyPlace::Whole(self.path.clone()),
            |range| self.place(&range),
        );
        ConfigError::Refused {
            place,
            message: error.message().trim().replace('\n', ", "),
        }
    }
}

/// Whether an override's value is a word without quotes: not TOML, and nothing that was meant to be more than a word.
fn bare(value: &str) -> bool {
    let value = value.trim();
    let structured = value.starts_with(['"', '\'', '[', '{']);
    !structured && DeValue::parse(value).is_err()
}

/// An experiment file with its overrides applied, not yet checked.
pub(super) struct Document<'s> {
    sources: &'s Sources,
    root: Spanned<DeValue<'s>>,
}

impl<'s> Document<'s> {
    /// # Errors
    /// Broken TOML, or an override whose path leads through something that is not a table or array.
    pub(super) fn parse(sources: &'s Sources) -> Result<Self, ConfigError> {
        let table = DeTable::parse(&sources.text).map_err(|error| sources.refuse(&error))?;
        let mut root = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        for set in &sources.sets {
            let refuse = |message: String| ConfigError::Refused {
                place: KeyPlace::Set(set.written.clone()),
                message,
            };
            let table = DeTable::parse(&set.padded)
                .map_err(|error| sources.refuse(&error))?
                .into_inner();
            let mut entries = table.into_iter();
            let (Some((_, value)), None) = (entries.next(), entries.next()) else {
                return Err(refuse("one value is expected after the `=`".into()));
            };
            insert(&mut root, &set.keys, &set.range, value).map_err(refuse)?;
        }
        Ok(Self { sources, root })
    }

    pub(super) fn root(&self) -> &Spanned<DeValue<'s>> {
        &self.root
    }

    pub(super) fn refuse(&self, range: &Range<usize>, message: String) -> ConfigError {
        ConfigError::Refused {
            place: self.sources.place(range),
            message,
        }
    }

    /// An error about the whole file, where something is missing from its top level.
    pub(super) fn refuse_whole(&self, message: String) -> ConfigError {
        ConfigError::Refused {
            place: KeyPlace::Whole(self.sources.path.clone()),
            message,
        }
    }

    /// An error at the value of a dotted key, or at the deepest table on the way to it.
    pub(super) fn refuse_key(&self, key: &str, message: String) -> ConfigError {
        let mut at = None;
        let mut value = &self.root;
        for key in key.split('.') {
            let next = match value.get_ref() {
                DeValue::Table(table) => table.get(key),
                DeValue::Array(array) => key.parse().ok().and_then(|index: usize| array.get(index)),
                _ => None,
            };
            let Some(next) = next else { break };
            at = Some(next.span());
            value = next;
        }
        at.map_or_else(
            || self.refuse_whole(message.clone()),
            |range| self.refuse(&range, message.clone()),
        )
    }

    /// # Errors
    /// What serde refuses although the schema allows it (a negative count, …), with its place.
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let DeValue::Table(table) = self.root.get_ref() else {
            unreachable!("the root of a document is a table")
        };
        let root = Spanned::new(self.root.span(), table.clone());
        T::deserialize(Deserializer::from(root)).map_err(|error| self.sources.refuse(&error))
    }
}

/// Puts `value` at the path `keys` below `node`; `range` is where the override stands.
fn insert<'s>(
    node: &mut Spanned<DeValue<'s>>,
    keys: &'s [String],
    range: &Range<usize>,
    value: Spanned<DeValue<'s>>,
) -> Result<(), String> {
    let Some((key, rest)) = keys.split_first() else {
        *node = value;
        return Ok(());
    };
    let kind = node.get_ref().type_str();
    match node.get_mut() {
        DeValue::Table(table) => {
            let empty = || Spanned::new(range.clone(), DeValue::Table(DeTable::new()));
            let key = Spanned::new(range.clone(), key.as_str().into());
            insert(table.entry(key).or_insert_with(empty), rest, range, value)
        }
        DeValue::Array(array) => {
            let length = array.len();
            let entry = key
                .parse()
                .ok()
                .and_then(|index: usize| array.get_mut(index));
            let entry = entry.ok_or_else(|| {
                format!("`{key}` is no index into an array of {length} entries (the first is 0)")
            })?;
            insert(entry, rest, range, value)
        }
        _ => Err(format!("`{key}` cannot be set inside a {kind}")),
    }
}
