//! What a suite is made of: the manifests in `datasets/`, or one of the user's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::sha256;
use crate::base::is_inside;
use crate::error::{Result, SourceError};

/// The manifests that come with the program: name, text, rows.
const KNOWN: [(&str, &str, &str); 2] = [
    (
        "mtl5",
        include_str!("../../../../../datasets/mtl5.toml"),
        include_str!("../../../../../datasets/mtl5.rows.toml"),
    ),
    (
        "moderation",
        include_str!("../../../../../datasets/moderation_en.toml"),
        include_str!("../../../../../datasets/moderation_en.rows.toml"),
    ),
];

/// A suite: tasks, their sources and how their files are made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its name.
    pub suite: String,
    /// Seed of the rule that splits where no rows are named.
    #[serde(default)]
    pub seed: u64,
    /// File with the rows of every split, beside the manifest.
    #[serde(default)]
    rows: Option<String>,
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// Which rows each split has, in their order, by the first digits of the hash of a line: task → split → hashes.
    #[serde(skip)]
    pub chosen: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// What the records look like; for people.
    #[serde(rename = "record", default)]
    _record: String,
}

/// A task of a suite.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// `https://github.com/owner/repo`, or `hf:datasets/owner/name`.
    pub source: String,
    /// The commit that the files are taken from; a branch or tag is the commit that it stands for when it is fetched.
    pub commit: String,
    /// Files of the source. Where one has a `*`, or the texts are files of their own, the whole source is fetched as an archive.
    pub files: Vec<String>,
    /// How a file is read.
    pub read: Read,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// Texts to learn from.
    pub train: Split,
    /// Texts to choose settings on.
    pub dev: Split,
    /// Texts to report on.
    pub test: Split,
    /// Under which terms the source stands.
    pub licence: String,
    /// What follows is for people: terms of the texts, remarks, and how well a linear model does.
    #[serde(rename = "terms", default)]
    _terms: String,
    #[serde(rename = "note", default)]
    _note: String,
    #[serde(rename = "original_labels", default)]
    _original_labels: String,
    #[serde(rename = "tfidf_logistic_regression_test_accuracy", default)]
    _linear: Option<f64>,
}

/// A file that is made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Its path below the data's root.
    pub file: String,
    /// Its lines; at most so many, where they are not chosen by hash.
    pub rows: usize,
    /// Its hash, where it is known.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// How texts and labels are found in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Its format.
    pub format: Format,
    /// Key or column of the text.
    #[serde(default)]
    pub text: Option<String>,
    /// In place of `text`: the file that holds the text, with columns in braces: `texts/{id}.txt`.
    #[serde(default)]
    pub text_file: Option<String>,
    /// Key or column of the label.
    #[serde(default)]
    pub label: Option<String>,
    /// The source's labels and the names that they stand for; others are left out. Without it the source has the names themselves,
    /// up to case and `and` for `&`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Formats of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One array of objects.
    Json,
    /// Comma-separated values with a line of heads.
    Csv,
    /// `text TAB label` a line.
    Lines,
}

impl Split {
    /// Whether a file with these bytes is the manifest's own.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        self.sha256.as_ref() == Some(&sha256(bytes))
    }
}

impl Task {
    /// Its splits with their names.
    pub fn splits(&self) -> [(&'static str, &Split); 3] {
        [
            ("train", &self.train),
            ("dev", &self.dev),
            ("test", &self.test),
        ]
    }
}

impl Manifest {
    /// The manifest of a suite by its name, or the file `name`.
    ///
    /// # Errors
    /// When there is no such suite or file, or it makes no sense.
    pub fn open(name: &str) -> Result<Self> {
        if let Some((_, text, rows)) = KNOWN.iter().find(|(known, ..)| *known == name) {
            return Self::parse(text, |_| Ok((*rows).into())).map_err(|error| error.within(name));
        }
        let path = Path::new(name);
        if path.extension().is_none_or(|extension| extension != "toml") {
            let known: Vec<&str> = KNOWN.iter().map(|(known, ..)| *known).collect();
            return Err(
                SourceError::new(format!("there is no suite {name:?}")).with_hint(format!(
                    "known are {}; a manifest of your own is a .toml file; `moe-cl demo` gets its data itself",
                    known.join(", ")
                )),
            );
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| SourceError::io("read", path, &error))
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&read(path)?, |rows| read(&folder.join(rows)))
            .map_err(|error| error.within(path.display()))
    }

    fn parse(text: &str, rows: impl Fn(&str) -> Result<String>) -> Result<Self> {
        let mut manifest: Self = read_toml(text)?;
        if let Some(name) = &manifest.rows {
            let chosen = read_toml(&rows(name)?).map_err(|error| error.within(name))?;
            manifest.chosen = Some(chosen);
        }
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        for task in &self.tasks {
            task.check()
                .map_err(|error| error.within(format_args!("task {}", task.name)))?;
        }
        Ok(())
    }
}

impl Task {
    fn check(&self) -> Result<()> {
        let task = self;
        let files = task.files.iter().map(|file| file.replace('*', "x"));
        let made = task.splits().map(|(_, split)| split.file.clone());
        for path in files.chain(made).chain([task.commit.clone()]) {
            if !is_inside(&path) {
                return Err(SourceError::new(format!(
                    "{path:?} does not stay inside its folder"
                )));
            }
        }
        let read = &task.read;
        if task.files.is_empty() || task.labels.is_empty() {
            return Err(SourceError::new("it has no files or no labels"));
        }
        let named = match read.format {
            Format::Lines => read.text.is_none() && read.label.is_none(),
            Format::Json => read.text.is_some() && read.label.is_some(),
            Format::Csv => read.text.is_some() != read.text_file.is_some() && read.label.is_some(),
        };
        if !named || (read.format != Format::Csv && read.text_file.is_some()) {
            return Err(SourceError::new(
                "`read` needs text and label (json), text or text_file and label (csv), or neither (lines)",
            ));
        }
        if let Some(label) = read
            .labels
            .values()
            .find(|label| !task.labels.contains(label))
        {
            return Err(SourceError::new(format!(
                "`read.labels` stands for {label:?}, which is not in `labels`"
            )));
        }
        Ok(())
    }
}

fn read_toml<T: DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| SourceError::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_that_come_along_are_sound_and_name_every_row() {
        for (name, ..) in KNOWN {
            let manifest = Manifest::open(name).unwrap();
            let chosen = manifest.chosen.as_ref().unwrap();
            for task in &manifest.tasks {
                for (split, file) in task.splits() {
                    let hashes = chosen[&task.name][split].split_whitespace();
                    assert_eq!(hashes.count(), file.rows, "{name}/{}/{split}", task.name);
                    assert_eq!(file.sha256.as_ref().map(String::len), Some(64));
                }
            }
        }
    }

    #[test]
    fn a_manifest_that_would_write_elsewhere_or_makes_no_sense_is_refused() {
        let text = |file: &str, read: &str| {
            format!(
                "suite = \"s\"\n[[tasks]]\nname = \"t\"\nsource = \"https://github.com/a/b\"\ncommit = \"0\"\nlicence = \"MIT\"\n\
                 files = [\"a.csv\"]\nlabels = [\"x\"]\nread = {read}\ntrain = {{ file = \"{file}\", rows = 1 }}\n\
                 dev = {{ file = \"d\", rows = 1 }}\ntest = {{ file = \"e\", rows = 1 }}\n"
            )
        };
        let parse = |file, read| Manifest::parse(&text(file, read), |_| Ok(String::new()));
        let good = r#"{ format = "csv", text = "t", label = "l" }"#;
        parse("a/b.jsonl", good).unwrap();
        assert!(parse("../b.jsonl", good).is_err());
        assert!(parse("/b.jsonl", good).is_err());
        for read in [
            r#"{ format = "csv", label = "l" }"#,
            r#"{ format = "lines", text = "t" }"#,
            r#"{ format = "json", text = "t" }"#,
            r#"{ format = "csv", text = "t", label = "l", labels = { 0 = "y" } }"#,
        ] {
            assert!(parse("b", read).is_err(), "{read}");
        }
    }

    #[test]
    fn a_name_of_no_suite_is_answered_with_those_that_there_are() {
        let error = Manifest::open("mtl6").unwrap_err();
        assert!(error.to_string().contains("mtl6"), "{error}");
        assert!(error.hint().unwrap().contains("mtl5, moderation"));
    }
}
