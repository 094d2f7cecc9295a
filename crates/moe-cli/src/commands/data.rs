//! `moe-cl data`

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use moe_cl::data::DataReport;
use moe_core::checkpoint::Checkpoint;
use moe_core::tokenizer::Tokenizer;
use moe_hub::data::suites::{self, Manifest, Origins, Provenance, Sources};
use moe_hub::{BaseSource, Cache, Web};

use super::{preview, print_json};
use crate::base;
use crate::download::DownloadDisplay;
use crate::failure::{Failure, message};
use crate::terminal::{self, tell};

/// What to do with data files.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Read files as training would; say what is in them and which records are refused
    Check(Check),
    /// Show records exactly as training renders them, what is learnt marked
    Preview(preview::Preview),
    /// Get the texts of a suite from where they are published, and make its train, dev and test files
    Fetch(Fetch),
}

/// Which files.
#[derive(Debug, Args)]
pub struct Check {
    /// JSON Lines, a JSON array (.json) or a table (.csv, .tsv): text and label, alpaca, sharegpt, messages, or prompt and answer
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also count tokens, with this base's tokenizer
    #[arg(long, value_name = "BASE")]
    base: Option<BaseSource>,
    /// Print the reports as JSON
    #[arg(long)]
    json: bool,
}

/// Which suite, and where to.
#[derive(Debug, Args)]
pub struct Fetch {
    /// mtl5, moderation, or a manifest of your own: a .toml file as in datasets/
    #[arg(value_name = "SUITE")]
    suite: String,
    /// Folder that gets `<suite>/<task>/{train,dev,test}.jsonl`: the `data.root` of experiments [default: data, in the cache folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Split by the rule of datasets/README.md, whatever rows the manifest names
    #[arg(long)]
    resample: bool,
}

/// Does what is asked with data files.
pub fn run(arguments: &Arguments) -> Result<()> {
    match arguments {
        Arguments::Check(arguments) => check(arguments),
        Arguments::Preview(arguments) => preview::run(arguments),
        Arguments::Fetch(arguments) => fetch(arguments),
    }
}

/// Makes the files of every task that can be had; fails when one cannot, or is not what the manifest says.
fn fetch(arguments: &Fetch) -> Result<()> {
    let Fetch {
        suite,
        out,
        resample,
    } = arguments;
    let manifest = Manifest::open(suite)?;
    let (origins, cache, web) = (Origins::from_env(), Cache::open()?, Web::new()?);
    let sources = Sources::new(&origins, &cache, &web);
    let root = out.clone().unwrap_or_else(|| cache.data());
    let (mut failed, mut differ) = (Vec::new(), 0);
    for task in &manifest.tasks {
        // One for each, so that a finished bar is gone before the line of its task.
        let mut display = DownloadDisplay::new();
        let mut show = |progress| display.show(&progress);
        let made = suites::make(&manifest, task, &root, *resample, &sources, &mut show);
        drop(display);
        match made {
            Ok(made) => {
                differ += usize::from(made.provenance == Provenance::Differ);
                writeln!(terminal::out(), "{}/{made}", manifest.suite)?;
            }
            Err(error) => {
                tell!("{}", message(&error.into()));
                failed.push(task.name.as_str());
            }
        }
    }
    writeln!(terminal::out(), "data: {}", root.display())?;
    if !failed.is_empty() {
        bail!(Failure::new(
            format!("{} is without {}", manifest.suite, failed.join(", ")),
            "see above for each; what has arrived is kept"
        ));
    }
    if differ > 0 {
        bail!(Failure::new(
            format!("{differ} tasks are not what the manifest says"),
            "their files can be used, but figures on them are not those of docs/RESULTS.md"
        ));
    }
    Ok(())
}

/// Prints a report per file; fails when a record is refused.
fn check(arguments: &Check) -> Result<()> {
    let Check { files, base, json } = arguments;
    let tokenizer = base.as_ref().map(tokenizer).transpose()?;
    let (mut refused, mut reports) = (0, Vec::new());
    for file in files {
        let report = DataReport::new(file, tokenizer.as_ref())?;
        refused += report.refused.len();
        match json {
            true => reports.push(report),
            false => write!(terminal::out(), "{report}")?,
        }
    }
    if *json {
        print_json(&reports)?;
    }
    if refused > 0 {
        let message = format!("{refused} records are refused");
        bail!(Failure::new(
            message,
            "training reads none of a file that has such a record: mend or remove them"
        ));
    }
    Ok(())
}

fn tokenizer(base: &BaseSource) -> Result<Tokenizer> {
    let (_, path) = base::fetch(Some(base))?;
    Ok(Checkpoint::open(&path)?.tokenizer()?)
}
