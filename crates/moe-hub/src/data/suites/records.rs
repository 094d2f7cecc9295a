//! From the files of a source to the lines of JSON that tasks are made of.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    manifest::{Format, Read, Task},
    origin::Files,
};
use crate::error::{Result, SourceError};

/// A text with its label, as the line that stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text, unchanged.
    pub text: String,
    /// The line, without its end.
    pub json: String,
}

impl Line {
    fn new(text: String, label: &str) -> Self {
        // With a space after colon and comma, as the files whose hashes are known have it.
        let (quoted, name) = (Value::from(text.as_str()), Value::from(label));
        let json = format!("{{\"text\": {quoted}, \"label\": {name}}}");
        Self { text, json }
    }
}

/// The texts of `files` that have one of the task's labels, in the order of `task.files` and of their rows.
///
/// # Errors
/// When a file is not of the form that `task.read` says; the error names file and row.
pub fn read(task: &Task, files: &Files) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for name in task.files.iter().filter(|name| !name.contains('*')) {
        let bytes = files
            .get(name)
            .ok_or_else(|| SourceError::new(format!("the source has no {name}")))?;
        let text = utf8(name, bytes)?;
        let text = text.trim_start_matches('\u{feff}');
        let pairs = match task.read.format {
            Format::Json => json(name, text, &task.read),
            Format::Csv => csv(name, text, &task.read, files),
            Format::Lines => tabbed(name, text),
        }?;
        let names = Names::of(task);
        for (text, label) in pairs {
            if let Some(label) = names.find(&label) {
                lines.push(Line::new(text, label));
            }
        }
    }
    if lines.is_empty() {
        return Err(SourceError::new(format!(
            "no text of {} has one of its labels: {}",
            task.name,
            task.labels.join(", ")
        )));
    }
    Ok(lines)
}

fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|error| SourceError::new(format!("{name} is not UTF-8: {error}")))
}

type Pair = (String, String);

fn json(name: &str, text: &str, read: &Read) -> Result<Vec<Pair>> {
    let rows: Vec<Map<String, Value>> = serde_json::from_str(text)
        .map_err(|error| SourceError::new(format!("{name} is no array of objects: {error}")))?;
    let field = |index: usize, row: &Map<String, Value>, key: &Option<String>| {
        let key = key.as_deref().unwrap_or_default();
        let value = row.get(key).and_then(Value::as_str);
        value.map(String::from).ok_or_else(|| {
            SourceError::new(format!(
                "{name}, record {}: no text under {key:?}",
                index + 1
            ))
        })
    };
    let pair = |(index, row): (usize, &Map<String, Value>)| {
        Ok((
            field(index, row, &read.text)?,
            field(index, row, &read.label)?,
        ))
    };
    rows.iter().enumerate().map(pair).collect()
}

fn csv(name: &str, text: &str, read: &Read, files: &Files) -> Result<Vec<Pair>> {
    // Some files end their lines as Windows does, inside of quotes too.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let damaged = |error: csv::Error| SourceError::new(error.to_string()).within(name);
    let heads = reader.headers().map_err(damaged)?.clone();
    let column = |head: &Option<String>| {
        let head = head.as_deref().unwrap_or_default();
        heads.iter().position(|other| other == head).ok_or_else(|| {
            let heads: Vec<&str> = heads.iter().collect();
            SourceError::new(format!(
                "{name} has no column {head:?} but {}",
                heads.join(", ")
            ))
        })
    };
    let label = column(&read.label)?;
    let own_text = read.text.as_ref().map(|_| column(&read.text)).transpose()?;
    let mut pairs = Vec::new();
    for row in reader.records() {
        let row = row.map_err(damaged)?;
        let text = match (own_text, &read.text_file) {
            (Some(column), _) => row[column].to_string(),
            (None, template) => {
                let template = template.as_deref().unwrap_or_default();
                let path = heads
                    .iter()
                    .zip(row.iter())
                    .fold(template.to_string(), |path, (head, value)| {
                        path.replace(&format!("{{{head}}}"), value)
                    });
                let bytes = files.get(&path).ok_or_else(|| {
                    SourceError::new(format!("{name} speaks of {path}, which is not there"))
                })?;
                utf8(&path, bytes)?.to_string()
            }
        };
        pairs.push((text, row[label].to_string()));
    }
    Ok(pairs)
}

fn tabbed(name: &str, text: &str) -> Result<Vec<Pair>> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            let (text, label) = line.rsplit_once('\t').ok_or_else(|| {
                SourceError::new(format!("{name}:{}: expected `text TAB label`", index + 1))
            })?;
            Ok((text.to_string(), label.to_string()))
        })
        .collect()
}

/// How the source's labels are named in the suite.
struct Names<'a>(BTreeMap<String, &'a str>);

impl<'a> Names<'a> {
    fn of(task: &'a Task) -> Self {
        let known = &task.read.labels;
        let same = task
            .labels
            .iter()
            .map(|label| (fold(label), label.as_str()));
        let other = known.iter().map(|(from, to)| (fold(from), to.as_str()));
        Self(match known.is_empty() {
            true => same.collect(),
            false => other.collect(),
        })
    }

    fn find(&self, label: &str) -> Option<&'a str> {
        self.0.get(&fold(label)).copied()
    }
}

fn fold(label: &str) -> String {
    label.trim().to_lowercase().replace(" and ", " & ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(read: &str, labels: &str) -> Task {
        let text = format!(
            "name = \"t\"\nsource = \"https://github.com/a/b\"\ncommit = \"0\"\nlicence = \"MIT\"\nfiles = [\"a\"]\nlabels = {labels}\n\
             read = {read}\ntrain = {{ file = \"a\", rows = 1 }}\ndev = {{ file = \"d\", rows = 1 }}\ntest = {{ file = \"e\", rows = 1 }}\n"
        );
        toml::from_str(&text).unwrap()
    }

    fn lines(task: &Task, text: &str) -> Result<Vec<String>> {
        let files = Files::from([
            ("a".to_string(), text.as_bytes().to_vec()),
            ("texts/7.txt".to_string(), b"seven".to_vec()),
        ]);
        let lines = read(task, &files)?;
        Ok(lines.into_iter().map(|line| line.json).collect())
    }

    #[test]
    fn quotes_commas_ends_of_lines_and_marks_survive_csv() {
        let task = task(
            r#"{ format = "csv", text = "CONTENT", label = "CLASS", labels = { 0 = "good", 1 = "bad" } }"#,
            r#"["good", "bad"]"#,
        );
        let text = "\u{feff}ID,CONTENT,CLASS\r\n1,\" He said \"\"hi, you\"\"\r\n\r\ntwice\u{feff}\",1\r\n2,é,0\r\n3,x,2\r\n";
        assert_eq!(
            lines(&task, text).unwrap(),
            [
                "{\"text\": \" He said \\\"hi, you\\\"\\n\\ntwice\u{feff}\", \"label\": \"bad\"}",
                "{\"text\": \"é\", \"label\": \"good\"}"
            ]
        );
        let error = lines(&task, "ID,TEXT,CLASS\n").unwrap_err().to_string();
        assert!(
            error.contains("no column \"CONTENT\" but ID, TEXT, CLASS"),
            "{error}"
        );
    }

    #[test]
    fn texts_in_files_of_their_own_are_found() {
        let task = task(
            r#"{ format = "csv", text_file = "texts/{id}.txt", label = "l" }"#,
            r#"["x"]"#,
        );
        let found = lines(&task, "id,l\n7,x\n").unwrap();
        assert_eq!(found, [r#"{"text": "seven", "label": "x"}"#]);
        let error = lines(&task, "id,l\n8,x\n").unwrap_err().to_string();
        assert!(error.contains("texts/8.txt"), "{error}");
    }

    #[test]
    fn labels_differ_by_case_and_ampersand_alone() {
        let labels = r#"["Entertainment & Music", "Sports"]"#;
        let tabbed = task(r#"{ format = "lines" }"#, labels);
        assert_eq!(
            lines(
                &tabbed,
                "a\\nb  c\tentertainment and Music\nd\tsports\ne\tother\n"
            )
            .unwrap(),
            [
                r#"{"text": "a\\nb  c", "label": "Entertainment & Music"}"#,
                r#"{"text": "d", "label": "Sports"}"#
            ]
        );
        let error = lines(&tabbed, "a\tsports\nno label\n")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("a:2:"), "{error}");
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let read = r#"{ format = "json", text = "sentence", label = "label" }"#;
        let task = task(read, r#"["x"]"#);
        let text = r#"[{"label": "x", "sentence": "Title: a\nText: b\n"}]"#;
        assert_eq!(
            lines(&task, text).unwrap(),
            [r#"{"text": "Title: a\nText: b\n", "label": "x"}"#]
        );
        let error = lines(&task, r#"[{"label": "x"}]"#).unwrap_err().to_string();
        assert!(error.contains("record 1"), "{error}");
        assert!(lines(&task, "{}").is_err());
    }
}
