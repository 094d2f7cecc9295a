//! `moe-cl learn`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{ArgGroup, Args};
use moe_cl::Error;
use moe_cl::config::{Experiment, TaskConfig};
use moe_cl::directory::{newest_saved, run_of};
use moe_cl::training::{LearnOptions, Outcome, Refusal, learn};
use moe_core::device::DeviceChoice;
use serde_json::json;

use super::{print_json, report};
use crate::base::ModelBase;
use crate::signals::{Signals, this_command_with};
use crate::terminal::{self, tell};
use crate::watchers::Watchers;

/// Exit status where a guard refused the task.
const REFUSED: u8 = 3;

/// Which model, and what it is to learn.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["task", "data"]))]
pub struct Arguments {
    /// Directory of the model, which is that of a run
    model: PathBuf,
    /// A file with [[tasks]] as an experiment has them; they are learnt in their order
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// Texts to learn from
    #[arg(long, value_name = "FILE", requires = "name")]
    data: Option<PathBuf>,
    /// Name of the task that --data is of
    #[arg(long, value_name = "NAME", requires = "data")]
    name: Option<String>,
    /// Its texts to choose settings on, and for the guards of later tasks
    #[arg(long, value_name = "FILE", requires = "data")]
    dev: Option<PathBuf>,
    /// Its texts to report on
    #[arg(long, value_name = "FILE", requires = "data")]
    test: Option<PathBuf>,
    /// What is asked about each text, for the instruction objective
    #[arg(long, value_name = "TEXT", requires = "data")]
    instruction: Option<String>,
    /// A setting of the task's own: of training and data, and rank, alpha and dropout of its experts; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Refuse a task that costs an earlier one more than this share of its dev part, the task given or inferred (exit status 3)
    #[arg(long, value_name = "SHARE", value_parser = share)]
    guard: Option<f64>,
    #[command(flatten)]
    base: ModelBase,
    /// Watch on a full-screen dashboard
    #[arg(long)]
    tui: bool,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text
        .parse()
        .map_err(|_| "a number is expected".to_owned())?;
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err("between 0 and 1".into()),
    }
}

/// Learns, writes the model's report anew and prints its table.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<ExitCode> {
    let out = run_of(&arguments.model)?;
    let saved = newest_saved(&out, |_| true)?;
    let saved = saved.with_context(|| format!("{}: no whole checkpoint yet", out.display()))?;
    let mut experiment = saved.state.whole_experiment();
    if let Some(device) = device {
        experiment.device = device.to_string();
    }
    let base = arguments.base.load(&saved, &experiment)?;
    let options = LearnOptions {
        set: arguments.set.clone(),
        guard: arguments.guard,
        allow_other_base: arguments.base.allow_other_base,
        device: Some(experiment.device.clone()),
    };
    let signals = Signals::listen()?;
    let mut outcomes = Vec::new();
    let mut refused = false;
    for task in tasks(arguments)? {
        let mut watchers = Watchers::new(&out, arguments.tui, &signals)?;
        let outcome = learn(&out, &base, &task, &options, &mut watchers);
        drop(watchers);
        let outcome = match outcome {
            // What is learnt already is known, and what was begun goes on.
            Err(Error::Stopped { step }) => {
                return Ok(signals.stopped(step, &this_command_with(None)));
            }
            outcome => outcome?,
        };
        if !arguments.json {
            say(&task.name, &outcome)?;
        }
        refused = matches!(outcome, Outcome::Refused(_));
        outcomes.push(match outcome {
            Outcome::Learnt(result) => {
                json!({"task": task.name, "outcome": "learnt", "result": result})
            }
            Outcome::Already => json!({"task": task.name, "outcome": "already"}),
            Outcome::Refused(refusal) => {
                json!({"task": task.name, "outcome": "refused", "refusal": refusal})
            }
        });
        if refused {
            break;
        }
    }
    if outcomes.iter().any(|it| it["outcome"] == "learnt") {
        report::write(
            std::slice::from_ref(&out),
            &out.join("report.html"),
            !arguments.json,
        )?;
    }
    if arguments.json {
        print_json(&outcomes)?;
    }
    Ok(match refused {
        true => ExitCode::from(REFUSED),
        false => ExitCode::SUCCESS,
    })
}

/// The tasks that the command line names.
fn tasks(arguments: &Arguments) -> Result<Vec<TaskConfig>> {
    if let Some(file) = &arguments.task {
        return Ok(Experiment::load_tasks(file)?);
    }
    let whole = |file: &Option<PathBuf>| -> Result<Option<PathBuf>> {
        let whole = file.as_ref().map(|file| {
            let whole = file.canonicalize();
            whole.with_context(|| format!("{}: the data cannot be read", file.display()))
        });
        whole.transpose()
    };
    let (data, name) = (whole(&arguments.data)?, arguments.name.clone());
    Ok(vec![TaskConfig {
        name: name.context("--name is needed with --data")?,
        train: data.context("--data is needed")?,
        dev: whole(&arguments.dev)?,
        test: whole(&arguments.test)?,
        labels: None,
        objective: None,
        metric: None,
        instruction: arguments.instruction.clone(),
    }])
}

fn say(name: &str, outcome: &Outcome) -> Result<()> {
    match outcome {
        Outcome::Learnt(_) => {}
        Outcome::Already => writeln!(
            terminal::out(),
            "{name} is learnt already, from the same data"
        )?,
        Outcome::Refused(Refusal {
            task,
            lost,
            scores: (before, after),
            inferred,
            allowed,
        }) => {
            let how = if *inferred { "inferred" } else { "given" };
            tell!(
                "refused: {name} would cost {task} {lost:.4} of its dev part ({before:.4} → {after:.4}, the task {how}), and {allowed} is allowed; the model is as it was"
            );
        }
    }
    Ok(())
}
