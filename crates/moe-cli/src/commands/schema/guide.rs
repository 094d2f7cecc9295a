//! Every key of the experiment file as tables of Markdown, from the JSON Schema that files are checked against: what docs/GUIDE.md says
//! of them cannot be another thing than what the program reads.

use std::iter;

use moe_cl::config::Bounds;
use serde_json::Value;

/// A section per table of the file, and per method one of its own.
pub fn keys(schema: &Value) -> String {
    let guide = Guide { root: schema };
    let (tables, simple): (Vec<_>, Vec<_>) = properties(schema)
        .map(|(key, property)| (key, property, guide.shape(property)))
        .partition(|(_, _, shape)| is_table(shape) || is_table(&guide.items(shape)));
    let mut text = String::from("### At the top\n\n");
    text += &guide.table(
        schema,
        simple.into_iter().map(|(key, property, _)| (key, property)),
    );
    for (key, property, shape) in tables {
        let (title, shape) = match is_table(&shape) {
            true => (format!("[{key}]"), shape),
            false => (format!("[[{key}]]"), guide.items(&shape)),
        };
        text += &format!("\n### `{title}`\n\n{}\n", guide.description(property));
        match shape["oneOf"].as_array() {
            Some(methods) => text.extend(methods.iter().map(|method| guide.method(key, method))),
            None => text += &format!("\n{}", guide.table(&shape, properties(&shape))),
        }
    }
    text
}

/// The schema of all, which its parts refer to.
struct Guide<'a> {
    root: &'a Value,
}

impl Guide<'_> {
    /// What `schema` refers to, and of a value that may be left out what it is otherwise.
    fn shape(&self, schema: &Value) -> Value {
        let target = schema["$ref"].as_str();
        if let Some(target) =
            target.and_then(|path| self.root.pointer(path.trim_start_matches('#')))
        {
            return self.shape(target);
        }
        let written = |form: &&Value| form["type"] != "null";
        match schema["anyOf"]
            .as_array()
            .and_then(|forms| forms.iter().find(written))
        {
            Some(form) => self.shape(form),
            None => schema.clone(),
        }
    }

    /// The entries of a list.
    fn items(&self, shape: &Value) -> Value {
        self.shape(&shape["items"])
    }

    /// What is said of a key where it stands, else of what it refers to.
    fn description(&self, property: &Value) -> String {
        let here = property["description"].as_str().map(str::to_owned);
        let there = || {
            self.shape(property)["description"]
                .as_str()
                .map(str::to_owned)
        };
        here.or_else(there).unwrap_or_default().replace('\n', " ")
    }

    /// A form of a table that is told from the others by one key (`name = "moe_cl"`).
    fn method(&self, key: &str, form: &Value) -> String {
        let own: Vec<(&str, &Value)> = properties(form).collect();
        let tag = own
            .iter()
            .find(|(_, property)| property["const"].is_string());
        let name = tag.map_or_else(String::new, |(tag, property)| {
            format!("{tag} = {}", property["const"])
        });
        let mut text = format!("\n#### `{key}.{name}`\n\n{}\n", self.description(form));
        let options = own.iter().copied();
        let mut options = options
            .filter(|(_, property)| !property["const"].is_string())
            .peekable();
        if options.peek().is_none() {
            return text + "It has no options.\n";
        }
        let options: Vec<(&str, &Value)> = options.collect();
        text += &format!("\n{}", self.table(&Value::Null, options.iter().copied()));
        for (option, property) in options {
            let shape = self.shape(property);
            if let Some(forms) = tagged(&shape) {
                let key = format!("{key}.{option}");
                text.extend(forms.iter().map(|form| self.method(&key, form)));
            } else if shape["properties"].is_object() {
                let table = self.table(&shape, properties(&shape));
                text += &format!("\n`{option}` is a table.\n\n{table}");
            }
        }
        text
    }

    /// A row per key of `table`.
    fn table<'k>(&self, table: &Value, keys: impl Iterator<Item = (&'k str, &'k Value)>) -> String {
        let required = |key: &str| list(&table["required"]).any(|required| required == key);
        let head = "| key | value | default | |\n|---|---|---|---|\n".to_owned();
        let rows = keys.map(|(key, property)| {
            let shape = self.shape(property);
            let described = self.description(property);
            let (mut said, told) = match described.split_once(" Default: ") {
                Some((said, default)) => (
                    said.to_owned(),
                    Some(default.trim_end_matches('.').to_owned()),
                ),
                None => (described, None),
            };
            let default = match &property["default"] {
                Value::Null if required(key) => "none: needed".into(),
                Value::Object(table) if tagged(&shape).is_some() => {
                    let kind = table.values().find(|value| value.is_string());
                    kind.map_or_else(String::new, |kind| format!("`{kind}`"))
                }
                Value::Null => told.unwrap_or_else(|| "absent".into()),
                value => format!("`{value}`"),
            };
            for choice in list(&shape["oneOf"]).filter(|_| tagged(&shape).is_none()) {
                said += &format!(" `{}`: {}", written(choice), self.description(choice));
            }
            let cells = [format!("`{key}`"), self.values(&shape), default, said];
            format!(
                "| {} |\n",
                cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
            )
        });
        iter::once(head).chain(rows).collect()
    }

    /// The values that a key takes.
    fn values(&self, shape: &Value) -> String {
        if tagged(shape).is_some() {
            return "table, see below".into();
        }
        let choices = list(&shape["enum"]).map(Value::to_string);
        let choices = choices.chain(list(&shape["oneOf"]).map(written));
        let choices: Vec<String> = choices.map(|choice| format!("`{choice}`")).collect();
        if !choices.is_empty() {
            return choices.join(", ");
        }
        let kinds = iter::once(&shape["type"]).chain(list(&shape["type"]));
        let kind = kinds.filter_map(Value::as_str).find(|kind| *kind != "null");
        match kind.unwrap_or_default() {
            "array" => format!("list of {}", self.values(&self.items(shape))),
            "integer" => ranged("whole number", shape),
            "number" => ranged("number", shape),
            "boolean" => "`true`, `false`".into(),
            "string" => "text".into(),
            "object" => "table".into(),
            other => other.into(),
        }
    }
}

/// The forms of a table that one key tells apart (`kind = "switch"`).
fn tagged(shape: &Value) -> Option<&Vec<Value>> {
    let forms = shape["oneOf"].as_array()?;
    let has_tag = |form: &Value| properties(form).any(|(_, it)| it["const"].is_string());
    forms.iter().any(has_tag).then_some(forms)
}

/// A choice as it is written: a text, or a table of one key.
fn written(choice: &Value) -> String {
    match properties(choice).next() {
        Some((key, _)) => format!("{{ {key} = … }}"),
        None => choice["const"].to_string(),
    }
}

/// A kind of number with its range.
fn ranged(kind: &str, shape: &Value) -> String {
    let range = Bounds::of(shape).to_string();
    match range.as_str() {
        "" => kind.into(),
        range => format!("{kind}, {range}"),
    }
}

/// Whether it is written as a table.
fn is_table(shape: &Value) -> bool {
    shape["type"] == "object" || list(&shape["oneOf"]).any(|form| form["type"] == "object")
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let keys = schema["properties"].as_object().into_iter().flatten();
    keys.map(|(key, property)| (key.as_str(), property))
}

fn list(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use moe_cl::config::Experiment;

    use super::*;

    /// Renews the part of docs/GUIDE.md; from the root of the project.
    const RENEW: &str = "cargo run --release -p moe-cli -- schema --guide | \
        sed -i -e '/^<!-- keys/,/^<!-- end of keys/{//!d}' -e '/^<!-- keys/r /dev/stdin' docs/GUIDE.md";

    #[test]
    fn the_guide_has_every_key_as_the_program_reads_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/GUIDE.md");
        let page = fs::read_to_string(&path).expect("docs/GUIDE.md");
        let (_, rest) = page.split_once("<!-- keys").expect("where the keys begin");
        let (part, _) = rest.split_once("<!-- end of keys").expect("where they end");
        let (_, part) = part
            .split_once("-->\n")
            .expect("the first mark is a line of its own");
        let keys = keys(&Experiment::schema());
        let mut pairs = part.lines().zip(keys.lines());
        let differs = pairs.find(|(page, program)| page != program);
        assert!(
            part == keys,
            "docs/GUIDE.md is not what the program reads (page, program: {differs:?}); renew it with\n{RENEW}"
        );
    }

    #[test]
    fn every_key_of_the_schema_has_a_row_with_its_values_and_what_it_is() {
        fn keys_of<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
            let own = properties(schema).filter(|(_, property)| property.get("const").is_none());
            found.extend(own.map(|(key, _)| key));
            let nested = ["$defs", "properties"].map(|key| schema[key].as_object());
            let nested = nested.into_iter().flatten().flatten();
            nested.for_each(|(_, schema)| keys_of(schema, found));
        }
        let schema = Experiment::schema();
        let text = keys(&schema);
        let mut found = Vec::new();
        keys_of(&schema, &mut found);
        assert!(found.len() > 40, "{found:?}");
        for key in found {
            let said = |start: String| text.lines().any(|line| line.starts_with(&start));
            let table = said(format!("### `[{key}]`")) || said(format!("### `[[{key}]]`"));
            assert!(table || said(format!("| `{key}` | ")), "{key}");
        }
        assert!(!text.contains("|  |"), "a cell is empty");
    }
}
