//! `moe-cl rollback`

use std::io::{IsTerminal, Write, stdin};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use moe_cl::directory::run_of;
use moe_cl::training::Rollback;

use super::report;
use crate::failure::Failure;
use crate::terminal;

/// Which model, and how far back.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of the model, which is that of a run
    model: PathBuf,
    /// The task that is to be the last
    #[arg(long, value_name = "TASK")]
    to: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Says what would be lost, asks, and goes back.
pub fn run(arguments: &Arguments) -> Result<()> {
    let back = Rollback::plan(&arguments.model, &arguments.to)?;
    let lost = match back.lost.as_slice() {
        [] => {
            return Ok(writeln!(
                terminal::out(),
                "{} is the last task already",
                arguments.to
            )?);
        }
        lost => lost.join(", "),
    };
    let loss = format!("{lost} ({} optimiser steps)", back.steps);
    if !arguments.yes {
        if !stdin().is_terminal() {
            bail!(Failure::new(
                format!("going back to {} would lose {loss}", arguments.to),
                "say --yes if that is meant",
            ));
        }
        write!(
            terminal::err(),
            "This loses {loss}. Go back to {}? [y/N] ",
            arguments.to
        )?;
        terminal::err().flush()?;
        let mut answer = String::new();
        stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "yes") {
            bail!("nothing was changed");
        }
    }
    back.apply()?;
    writeln!(
        terminal::out(),
        "gone back to {}; lost: {loss}",
        arguments.to
    )?;
    let out = run_of(&arguments.model)?;
    report::write(std::slice::from_ref(&out), &out.join("report.html"), true)
}
