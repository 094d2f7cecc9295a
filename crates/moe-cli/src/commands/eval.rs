//! `moe-cl eval`

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgGroup, Args, ValueEnum};
use moe_cl::config::Split;
use moe_cl::training::Trained;
use moe_core::device::DeviceChoice;
use moe_core::source::BaseSource;

use crate::base;
use crate::progress::ProgressDisplay;

/// What to score, and on which texts.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["run", "checkpoint"]))]
pub struct Arguments {
    /// Directory of a run: its newest whole checkpoint
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Directory of one checkpoint of a run
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Part of each task's data [default: as in the run]
    #[arg(long, value_enum)]
    split: Option<SplitName>,
    /// Base model in place of the one that the run names
    #[arg(long, value_name = "BASE")]
    base: Option<BaseSource>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitName {
    Dev,
    Test,
}

/// Scores every task of the stream and prints a line for each.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    let path = arguments
        .run
        .as_ref()
        .or(arguments.checkpoint.as_ref())
        .expect("clap requires one of them");
    let mut experiment = Trained::experiment(path)?;
    let base = base::load(&mut experiment, arguments.base.as_ref(), device)?;
    let mut trained = Trained::open(path, &base)?;
    if let Some(split) = arguments.split {
        trained.experiment.evaluation.split = match split {
            SplitName::Dev => Split::Dev,
            SplitName::Test => Split::Test,
        };
    }
    let mut display = ProgressDisplay::new();
    let (tasks, scores) = trained.evaluate(&mut display)?;
    drop(display);

    let width = tasks
        .iter()
        .map(|task| task.name.len())
        .max()
        .unwrap_or(0)
        .max("task".len());
    let mut out = stdout().lock();
    writeln!(out, "{:width$}  texts  accuracy", "task")?;
    for (index, (task, score)) in tasks.iter().zip(&scores.accuracies).enumerate() {
        let score = score.map_or_else(|| "–".to_string(), |score| format!("{score:.4}"));
        let note = if index < trained.learnt {
            ""
        } else {
            "  (not learnt yet)"
        };
        writeln!(
            out,
            "{:width$}  {:5}  {score:>8}{note}",
            task.name,
            task.evaluation.len()
        )?;
    }
    let learnt = scores
        .accuracies
        .iter()
        .take(trained.learnt)
        .flatten()
        .collect::<Vec<_>>();
    if !learnt.is_empty() {
        let mean = learnt.iter().copied().sum::<f64>() / learnt.len() as f64;
        writeln!(out, "mean of the {} learnt: {mean:.4}", learnt.len())?;
    }
    Ok(())
}
