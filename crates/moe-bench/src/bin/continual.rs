//! `continual --out DIR [--suite …] [--methods …] [--orders …] [--seeds …] [--budget …]`: methods on streams of tasks, in one table.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use moe_bench::continual::{self, Options};

#[derive(Parser)]
#[command(
    name = "continual",
    about = "Compares continual-learning methods over orders and seeds"
)]
struct Arguments {
    #[command(flatten)]
    options: Option<Options>,
    /// Train one run, whose experiment comes on standard input: how this program runs itself
    #[arg(long, hide = true, value_name = "DIR", conflicts_with = "Options")]
    child: Option<PathBuf>,
    /// Measure stripping rates in the child
    #[arg(long, hide = true, requires = "child")]
    stripping: bool,
}

fn main() -> ExitCode {
    moe_kernels::set_up_process();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // In one line and without a backtrace: of a run that fails, the last line is what the table says.
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(folder) = &arguments.child {
        return continual::child(folder, arguments.stripping);
    }
    let options = arguments.options.context("--out DIR is missing")?;
    let stripping = options.suite.has_stripping();
    let table = continual::run(&options, &mut |experiment, folder| {
        continual::train(experiment, folder, stripping)
    })?;
    writeln!(
        std::io::stdout(),
        "{table}\n{}",
        options.out.join("table.html").display()
    )?;
    Ok(())
}
