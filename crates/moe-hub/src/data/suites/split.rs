//! Which texts go into train, dev and test.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::{manifest::Task, records::Line, sha256};
use crate::error::{Result, SourceError};

/// Digits of a line's hash that name it.
const DIGITS: usize = 10;

/// The contents of the three files, in the order of [`Task::splits`].
pub type Contents = [String; 3];

/// The lines that `chosen` names (split → hashes), in that order.
///
/// # Errors
/// When the source does not have one of them.
pub fn by_rows(task: &Task, lines: &[Line], chosen: &BTreeMap<String, String>) -> Result<Contents> {
    let hashes: Vec<String> = lines.iter().map(|line| digits(&line.json)).collect();
    let known: HashMap<&str, &Line> = hashes.iter().map(String::as_str).zip(lines).collect();
    let mut contents = Contents::default();
    for ((name, _), content) in task.splits().into_iter().zip(&mut contents) {
        let rows = chosen.get(name).ok_or_else(|| {
            SourceError::new(format!("no rows are named for {}/{name}", task.name))
        })?;
        let mut missing = 0;
        for row in rows.split_whitespace() {
            match known.get(row) {
                Some(line) => push(content, line),
                None => missing += 1,
            }
        }
        if missing > 0 {
            let count = rows.split_whitespace().count();
            return Err(SourceError::new(format!(
                "{missing} of the {count} rows of {}/{name} are not in its source, which is another than the suite was made of",
                task.name
            ))
            .with_hint(
                "check the files of the source; or take --resample, which splits what is there by a rule of its own: \
                 the files are then not those that docs/RESULTS.md speaks of",
            ));
        }
    }
    Ok(contents)
}

/// A split of its own: every text once, in the order of the SHA-256 of `seed`, a zero byte and the text; the first rows are test,
/// the next dev, the next train, each as many as the manifest says while they last.
pub fn by_rule(task: &Task, lines: &[Line], seed: u64) -> Contents {
    let mut seen = HashSet::new();
    let once = lines.iter().filter(|line| seen.insert(line.text.as_str()));
    let mut ordered: Vec<(Vec<u8>, &Line)> = once
        .map(|line| {
            let digest = Sha256::new()
                .chain_update(seed.to_string())
                .chain_update([0])
                .chain_update(&line.text);
            (digest.finalize().to_vec(), line)
        })
        .collect();
    ordered.sort_by(|a, b| a.0.cmp(&b.0));
    let mut rest = ordered.into_iter().map(|(_, line)| line);
    let mut contents = Contents::default();
    let splits = task.splits();
    for index in [2, 1, 0] {
        for line in rest.by_ref().take(splits[index].1.rows) {
            push(&mut contents[index], line);
        }
    }
    contents
}

fn push(content: &mut String, line: &Line) {
    content.push_str(&line.json);
    content.push('\n');
}

fn digits(line: &str) -> String {
    let mut hash = sha256(line.as_bytes());
    hash.truncate(DIGITS);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::suites::Manifest;

    /// The suites' files, where they are at hand, are what the rows beside the manifests name.
    #[test]
    fn the_rows_that_come_along_are_those_of_the_files() {
        let root =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/datasets");
        if !root.is_dir() {
            eprintln!("SKIP: no files at {}", root.display());
            return;
        }
        for suite in ["mtl5", "moderation"] {
            let manifest = Manifest::open(suite).unwrap();
            let chosen = manifest.chosen.as_ref().unwrap();
            for task in &manifest.tasks {
                let mut lines = Vec::new();
                for (_, split) in task.splits() {
                    let text = std::fs::read_to_string(root.join(&split.file)).unwrap();
                    lines.extend(text.split_terminator('\n').map(|json| Line {
                        text: String::new(),
                        json: json.into(),
                    }));
                }
                lines.reverse();
                let contents = by_rows(task, &lines, &chosen[&task.name]).unwrap();
                for ((_, split), content) in task.splits().into_iter().zip(&contents) {
                    assert_eq!(Some(&sha256(content.as_bytes())), split.sha256.as_ref());
                }
            }
        }
    }
}
