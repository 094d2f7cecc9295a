//! `moe-cl schema`

use std::io::{Write, stdout};

use anyhow::Result;
use moe_cl::config::Experiment;

/// Prints the JSON Schema of experiment files.
pub fn run() -> Result<()> {
    Ok(writeln!(stdout(), "{:#}", Experiment::schema())?)
}
