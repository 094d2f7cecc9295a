//! `moe-cl report`

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use moe_report::RunData;
use serde_json::json;

use super::print_json;
use crate::failure::Failure;
use crate::terminal;

/// Which runs, and where the page goes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Run directories, or directories that hold some: directly, or one folder further down
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// The page [default: report.html in DIR, where that is one run; several need a name]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Writes the page and prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut runs = Vec::new();
    for directory in &arguments.runs {
        let before = runs.len();
        collect(directory, DEPTH, &mut runs)?;
        if runs.len() == before {
            let message = format!(
                "{}: neither a run nor a folder of runs",
                directory.display()
            );
            bail!(Failure::new(
                message,
                "a run has an events.jsonl; runs are looked for in DIR, DIR/* and DIR/*/*"
            ));
        }
    }
    let page = match &arguments.out {
        Some(page) => page.clone(),
        // A model that may only be read is reported on here.
        None => match (fs::metadata(&arguments.runs[0]), &runs[..]) {
            (Ok(folder), _) if folder.permissions().readonly() => PathBuf::from("report.html"),
            (_, [run]) => run.join("report.html"),
            (_, several) => bail!(Failure::new(
                format!("{} runs, and no name for the page over them", several.len()),
                "say where it goes: --out report.html"
            )),
        },
    };
    write(&runs, &page, !arguments.json)?;
    match arguments.json {
        true => print_json(&figures(&runs)?),
        false => Ok(()),
    }
}

/// The figures of every run, for programs.
fn figures(runs: &[PathBuf]) -> Result<Vec<serde_json::Value>> {
    let figures = runs.iter().map(|path| {
        let run = RunData::load(path)?;
        Ok(json!({
            "run": path, "name": run.name, "method": run.method, "seed": run.seed, "tasks": run.tasks,
            "finished": run.finished, "matrix": run.matrix, "summary": run.matrix.summary(),
            "inferred": run.last_inferred(),
        }))
    });
    figures.collect()
}

/// Writes the page over `runs` to `page`; says their table and where the page is where that is wanted.
pub fn write(runs: &[PathBuf], page: &Path, say: bool) -> Result<()> {
    let runs = runs
        .iter()
        .map(|run| RunData::load(run))
        .collect::<std::io::Result<Vec<_>>>()?;
    for damage in runs.iter().flat_map(|run| &run.passed_over) {
        crate::terminal::tell!("warning: {damage}");
    }
    moe_report::write(&runs, page)?;
    if say {
        writeln!(
            terminal::out(),
            "{}\n{}",
            moe_report::table(&runs),
            page.display()
        )?;
    }
    Ok(())
}

/// How far below a directory runs are looked for.
const DEPTH: usize = 2;

/// The run directories at or so far below `directory`, in the order of their names. Links are not followed.
fn collect(directory: &Path, depth: usize, runs: &mut Vec<PathBuf>) -> Result<()> {
    if directory.join("events.jsonl").is_file() {
        runs.push(directory.to_path_buf());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let entries = fs::read_dir(directory)
        .map_err(|error| anyhow::anyhow!("{}: {error}", directory.display()))?;
    let mut below = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect::<Vec<_>>();
    below.sort();
    below
        .iter()
        .try_for_each(|path| collect(path, depth - 1, runs))
}
