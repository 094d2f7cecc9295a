//! `moe-cl data`

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use moe_cl::data::DataReport;
use moe_core::checkpoint::Checkpoint;
use moe_core::source::BaseSource;
use moe_core::tokenizer::Tokenizer;

use crate::base;
use crate::failure::Failure;

/// What to do with data files.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Read files as training would; say what is in them and which records are refused
    Check(Check),
}

/// Which files.
#[derive(Debug, Args)]
pub struct Check {
    /// JSON Lines: text and label, alpaca, sharegpt, messages, or prompt and answer
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also count tokens, with this base's tokenizer
    #[arg(long, value_name = "BASE")]
    base: Option<BaseSource>,
}

/// Prints a report per file; fails when a record is refused.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments::Check(Check { files, base }) = arguments;
    let tokenizer = base.as_ref().map(tokenizer).transpose()?;
    let mut refused = 0;
    for file in files {
        let report = DataReport::new(file, tokenizer.as_ref())?;
        write!(stdout(), "{report}")?;
        refused += report.refused.len();
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
