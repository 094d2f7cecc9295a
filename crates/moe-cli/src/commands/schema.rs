//! `moe-cl schema`

mod guide;

use std::io::Write;

use anyhow::Result;
use clap::Args;
use moe_cl::config::Experiment;

use crate::terminal;

/// In which form.
#[derive(Debug, Args)]
pub struct Arguments {
    /// As tables for people: the part of docs/GUIDE.md that lists every key
    #[arg(long)]
    guide: bool,
}

/// Prints the JSON Schema of experiment files, or what it says in tables.
pub fn run(arguments: &Arguments) -> Result<()> {
    let schema = Experiment::schema();
    match arguments.guide {
        true => write!(terminal::out(), "{}", guide::keys(&schema))?,
        false => writeln!(terminal::out(), "{schema:#}")?,
    }
    Ok(())
}
