//! The check of a document against the JSON Schema of experiments: every key known, every type right, every number in its range, nothing
//! missing.

use std::ops::Range;

use serde_json::Value as Json;
use toml::{Spanned, de::DeValue};

use super::{
    ConfigError,
    bounds::{Bounds, number_of},
    document::Document,
    schema::{Form, forms, list, properties, tag, types},
};

/// # Errors
/// The first key that is unknown or missing, or value that has another type or is none of the choices.
pub(super) fn check(document: &Document<'_>, schema: &Json) -> Result<(), ConfigError> {
    Check { document, schema }.value("", document.root(), schema)
}

struct Check<'a> {
    document: &'a Document<'a>,
    schema: &'a Json,
}

impl<'a> Check<'a> {
    fn value(
        &self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
        schema: &'a Json,
    ) -> Result<(), ConfigError> {
        let forms = forms(self.schema, schema);
        let fitting: Vec<&Form<'a>> = forms
            .iter()
            .filter(|form| types(form).any(|json| fits(value.get_ref(), json)))
            .collect();
        if fitting.is_empty() {
            let mut expected: Vec<&str> = forms
                .iter()
                .flat_map(types)
                .filter(|kind| *kind != "null")
                .map(kind_name)
                .collect();
            expected.sort_unstable();
            expected.dedup();
            let message = format!(
                "`{path}` must be {}, not {}",
                expected.join(" or "),
                kind_name(value.get_ref().type_str())
            );
            return Err(self.document.refuse(&value.span(), message));
        }
        match value.get_ref() {
            DeValue::Table(table) => {
                let form = self.tagged(path, value.span(), table, &fitting)?;
                self.table(path, value.span(), table, form)
            }
            DeValue::Array(array) => {
                let items = fitting
                    .iter()
                    .flat_map(|form| form.iter())
                    .find_map(|schema| schema.get("items"));
                let items = items.map(|schema| {
                    array.iter().enumerate().try_for_each(|(i, item)| {
                        self.value(&join(path, &i.to_string()), item, schema)
                    })
                });
                items.unwrap_or(Ok(()))
            }
            DeValue::String(text) => self.choice(path, value.span(), text, &fitting),
            number => self.range(path, value.span(), number, &fitting),
        }
    }

    /// Where a text may only be one of a few: that it is.
    fn choice(
        &self,
        path: &str,
        range: Range<usize>,
        text: &str,
        forms: &[&Form<'a>],
    ) -> Result<(), ConfigError> {
        let choices = |form: &Form<'a>| -> Vec<&'a str> {
            form.iter()
                .flat_map(|schema| {
                    schema
                        .get("const")
                        .into_iter()
                        .chain(list(schema.get("enum")))
                })
                .filter_map(Json::as_str)
                .collect()
        };
        if forms.iter().any(|form| choices(form).is_empty()) {
            return Ok(());
        }
        self.one_of(
            path,
            range,
            text,
            &forms
                .iter()
                .flat_map(|form| choices(form))
                .collect::<Vec<_>>(),
        )
    }

    /// Where a number has to be in a range: that it is.
    fn range(
        &self,
        path: &str,
        range: Range<usize>,
        value: &DeValue<'_>,
        forms: &[&Form<'a>],
    ) -> Result<(), ConfigError> {
        let Some(number) = number_of(value) else {
            return Ok(());
        };
        let schemas = forms.iter().flat_map(|form| form.iter());
        let mut bounds = schemas.map(|schema| Bounds::of(schema));
        match bounds.find(|bounds| !bounds.hold(number)) {
            None => Ok(()),
            Some(bounds) => Err(self
                .document
                .refuse(&range, format!("`{path}` must be {bounds}, got {number}"))),
        }
    }

    fn one_of(
        &self,
        path: &str,
        range: Range<usize>,
        text: &str,
        choices: &[&str],
    ) -> Result<(), ConfigError> {
        if choices.contains(&text) {
            return Ok(());
        }
        let message = format!(
            "`{path}` cannot be `{text}`; nearest: `{}`; valid: {}",
            nearest(text, choices),
            choices.join(", ")
        );
        Err(self.document.refuse(&range, message))
    }

    /// The form of a table that its tag names, where the forms are told apart by one (`method.name`).
    fn tagged<'f>(
        &self,
        path: &str,
        range: Range<usize>,
        table: &toml::de::DeTable<'_>,
        forms: &[&'f Form<'a>],
    ) -> Result<&'f Form<'a>, ConfigError> {
        let tags: Vec<(&str, &str)> = forms.iter().filter_map(|form| tag(form)).collect();
        let Some(&(key, _)) = tags.first().filter(|_| forms.len() > 1) else {
            // Told apart by their keys (`{factor = …}` or `{places = …}`).
            let knows = |form: &&&Form<'a>| {
                let mut keys = table.keys();
                keys.all(|key| properties(form).any(|(known, _)| known == key.get_ref().as_ref()))
            };
            return Ok(forms.iter().find(knows).copied().unwrap_or(forms[0]));
        };
        let values: Vec<&str> = tags.iter().map(|(_, value)| *value).collect();
        let Some(value) = table.get(key) else {
            return Err(self.document.refuse(
                &range,
                format!(
                    "[{path}] lacks the key `{key}`: one of {}",
                    values.join(", ")
                ),
            ));
        };
        let path = join(path, key);
        let Some(text) = value.get_ref().as_str() else {
            let message = format!(
                "`{path}` must be a text, not {}",
                kind_name(value.get_ref().type_str())
            );
            return Err(self.document.refuse(&value.span(), message));
        };
        self.one_of(&path, value.span(), text, &values)?;
        Ok(forms
            .iter()
            .copied()
            .find(|form| tag(form) == Some((key, text)))
            .expect("the tag is one of the choices"))
    }

    fn table(
        &self,
        path: &str,
        range: Range<usize>,
        table: &toml::de::DeTable<'_>,
        form: &Form<'a>,
    ) -> Result<(), ConfigError> {
        let known: Vec<(&str, &'a Json)> = properties(form).collect();
        let keys: Vec<&str> = known.iter().map(|(key, _)| *key).collect();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let Some((_, schema)) = known.iter().find(|(known, _)| *known == name) else {
                let place = if path.is_empty() {
                    "at the top level".into()
                } else {
                    format!("in [{path}]")
                };
                let message = format!(
                    "unknown key `{name}` {place}; nearest: `{}`; valid: {}",
                    nearest(name, &keys),
                    keys.join(", ")
                );
                return Err(self.document.refuse(&key.span(), message));
            };
            self.value(&join(path, name), value, schema)?;
        }
        let mut required = form
            .iter()
            .flat_map(|schema| list(schema.get("required")))
            .filter_map(Json::as_str);
        match required.find(|key| !table.contains_key(*key)) {
            None => Ok(()),
            Some(key) if path.is_empty() => Err(self
                .document
                .refuse_whole(format!("the key `{key}` is missing"))),
            Some(key) => Err(self
                .document
                .refuse(&range, format!("[{path}] lacks the key `{key}`"))),
        }
    }
}

fn fits(value: &DeValue<'_>, json: &str) -> bool {
    matches!(
        (value, json),
        (DeValue::String(_), "string")
            | (DeValue::Integer(_), "integer" | "number")
            | (DeValue::Float(_), "number")
            | (DeValue::Boolean(_), "boolean")
            | (DeValue::Array(_), "array")
            | (DeValue::Table(_), "object")
    )
}

/// A TOML or JSON type in words.
fn kind_name(kind: &str) -> &str {
    match kind {
        "string" => "a text in quotes",
        "integer" => "a whole number",
        "number" => "a number",
        "float" => "a number with a fraction",
        "boolean" => "true or false",
        "array" => "a list",
        "object" | "table" => "a table",
        "datetime" => "a date",
        other => other,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.into()
    } else {
        format!("{path}.{key}")
    }
}

/// The candidate that differs least from `word`.
fn nearest<'c>(word: &str, candidates: &[&'c str]) -> &'c str {
    let distance = |candidate: &&&str| {
        (1000.0 * (1.0 - strsim::normalized_damerau_levenshtein(word, candidate))) as u32
    };
    candidates
        .iter()
        .min_by_key(distance)
        .copied()
        .unwrap_or_default()
}
