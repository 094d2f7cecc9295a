//! The `moe-cl` command: trains, evaluates, prompts and reports on language models that keep learning.

mod base;
mod commands;
mod download;
mod failure;
mod model;
mod progress;
mod signals;
mod suite;
mod terminal;
mod watchers;
mod writing;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use commands::Cli;
use terminal::tell;

fn main() -> ExitCode {
    moe_kernels::set_up_process();
    note_full_files();
    let cli = Cli::parse();
    log_to_stderr();
    match kernels_level().and_then(|()| commands::run(cli)) {
        Ok(status) => status,
        Err(error) if failure::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            tell!("{}", failure::message(&error));
            ExitCode::FAILURE
        }
    }
}

/// A file that reaches the largest size that the system allows (`ulimit -f`) is an error of writing, and no death by a signal.
fn note_full_files() {
    #[cfg(unix)]
    {
        let noted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        // Where the system refuses, it is as it was.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, noted);
    }
}

/// Refuses a level of instructions that the processor has not.
fn kernels_level() -> anyhow::Result<()> {
    let asked = moe_kernels::Level::asked_for();
    asked.map(drop).map_err(anyhow::Error::msg)
}

/// What libraries log: warnings, unless `RUST_LOG` asks for more.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .init();
}
