//! Good and bad data files: JSON Lines with text and label, and the authors' JSON arrays.

use std::path::Path;

use moe_cl::data::{Record, read};
use serde_json::Value;

use super::case::Case;
use super::check::Verdict;
use super::expectation::{Expected, number_near};
use super::hostile::Files;
use super::probe::{self, Outcome, Subject};

/// Reads every file listed in a child process.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let listed = case.files()?;
    let labels = known_labels(&case.notes());
    let mut files = Files::default();
    for (name, note) in &listed {
        let path = case.dir.join(name);
        let mut outcome = probe::ask(Subject::Records, &path, &labels)?;
        if let (Ok(Outcome::Loaded { items, differences }), Some(rows)) = (
            &mut outcome,
            number_near(note, "rows").or(number_near(note, "row")),
        ) && *items != rows
        {
            differences.push(format!("{items} rows"));
        }
        files.judge(name, note, outcome, |message| {
            names_the_place(message, &path, note)
        });
    }
    Ok(files.verdict(case, &listed))
}

/// The list after `Known labels:` in the notes.
fn known_labels(notes: &str) -> Vec<String> {
    let list = notes.split_once("Known labels:").map_or("", |(_, rest)| {
        rest.split(['.', '\n']).next().unwrap_or_default()
    });
    list.split(',')
        .map(str::trim)
        .filter(|label| !label.is_empty())
        .map(String::from)
        .collect()
}

/// An error names the line, row or index that the note names.
fn names_the_place(message: &str, path: &Path, note: &str) -> Result<(), String> {
    let places: Vec<usize> = ["line", "row", "index"]
        .iter()
        .filter_map(|word| number_near(note, word))
        .collect();
    if Expected::read(note) != Expected::Refused || places.is_empty() {
        return Ok(());
    }
    // The path may hold digits of its own.
    let rest = message.replace(&path.display().to_string(), "");
    let named = rest
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse::<usize>().ok())
        .any(|number| places.contains(&number));
    if named {
        Ok(())
    } else {
        Err(format!("the error names none of {places:?}"))
    }
}

/// Reads the records and compares their texts and labels with a plain JSON reading of the same file.
pub fn read_hostile(path: &Path, labels: &[String]) -> Outcome {
    let rows = match read(path, Some(labels).filter(|labels| !labels.is_empty())) {
        Ok(rows) => rows,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let wanted = plain_reading(path);
    let mut differences = Vec::new();
    if wanted.len() != rows.len() {
        differences.push(format!(
            "{} records where a plain reading finds {}",
            rows.len(),
            wanted.len()
        ));
    }
    for (row, (text, label)) in rows.iter().zip(&wanted) {
        let same = matches!(&row.record, Record::Classification { text: got, label: name } if got == text && name == label);
        if !same {
            let shown: String = format!("{:?}", row.record).chars().take(120).collect();
            differences.push(format!("{:?} got {shown}", row.place));
        }
    }
    Outcome::Loaded {
        items: rows.len(),
        differences,
    }
}

/// Text and label of every object in the file.
fn plain_reading(path: &Path) -> Vec<(String, String)> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}');
    let objects: Vec<Value> = match serde_json::from_str(text) {
        Ok(Value::Array(objects)) => objects,
        _ => text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect(),
    };
    let field = |object: &Value, keys: [&str; 2]| {
        keys.iter()
            .find_map(|key| object[*key].as_str())
            .unwrap_or_default()
            .to_string()
    };
    objects
        .iter()
        .map(|object| {
            (
                field(object, ["text", "sentence"]),
                field(object, ["label", "label"]),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_from_the_notes() {
        assert_eq!(
            known_labels("Fields are x. Known labels: yes, no. Lines are 1-based."),
            ["yes", "no"]
        );
        assert!(known_labels("nothing").is_empty());
    }

    #[test]
    fn an_error_has_to_name_the_line_that_the_note_names() {
        let path = Path::new("/data3/x.jsonl");
        assert!(names_the_place("/data3/x.jsonl:3: no text", path, "line 3: no text").is_ok());
        assert!(names_the_place("/data3/x.jsonl: no text", path, "line 3: no text").is_err());
        assert!(names_the_place("/data3/x.jsonl: no rows", path, "UTF-16 file").is_ok());
    }
}
