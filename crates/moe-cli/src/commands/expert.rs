//! `moe-cl expert`

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgGroup, Args, Subcommand};
use moe_cl::config::TaskConfig;
use moe_cl::directory::Saved;
use moe_cl::training::{
    ExportOptions, Exported, Made, Trained, Which, checkpoint_of, import, remove,
};
use moe_core::device::DeviceChoice;
use serde::Serialize;
use serde_json::json;

use super::print_json;
use crate::failure::Failure;
use crate::model::{BaseArguments, tell_of_damage};
use crate::progress::ProgressDisplay;
use crate::terminal::{self, tell};

/// What to do with experts.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// The experts of a model: what each was made for, where it comes from, how large it is
    List(List),
    /// Write what answers for a task as an adapter that PEFT loads, or as a whole model
    Export(Export),
    /// Make an adapter that PEFT wrote an expert of a model, and a task that it answers
    Import(Import),
    /// Take an imported expert out again, with the task that it answers
    Remove(Remove),
}

/// Which model.
#[derive(Debug, Args)]
pub struct List {
    /// Directory of a model, or of one of its checkpoints
    model: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Which task, and where to.
#[derive(Debug, Args)]
pub struct Export {
    /// Directory of a model, or of one of its checkpoints
    model: PathBuf,
    /// The task
    #[arg(long, value_name = "NAME")]
    task: String,
    /// The folder, which is made
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The most that the task's score may fall where one adapter stands for experts that a gate mixes
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    max_gap: f64,
    /// Write a whole model with the adapter folded in, in f32
    #[arg(long)]
    merged: bool,
    #[command(flatten)]
    base: BaseArguments,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// Which adapter, into which model.
#[derive(Debug, Args)]
pub struct Import {
    /// Directory of the model, which is that of a run
    model: PathBuf,
    /// The adapter's folder: adapter_config.json and adapter_model.safetensors
    adapter: PathBuf,
    /// Make it answer a task of this name, alone and in words; without it the expert waits in the catalogue
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Texts of the task that are kept to score it on; without them it answers in free text
    #[arg(long, value_name = "FILE", requires = "task")]
    data: Option<PathBuf>,
    /// What is asked about each text
    #[arg(long, value_name = "TEXT", requires = "task")]
    instruction: Option<String>,
    #[command(flatten)]
    base: BaseArguments,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// Which expert.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["task", "expert"]))]
pub struct Remove {
    /// Directory of the model, which is that of a run
    model: PathBuf,
    /// The imported task whose expert goes
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// The id of the expert
    #[arg(long, value_name = "ID")]
    expert: Option<u64>,
}

fn share(text: &str) -> Result<f64, String> {
    let value = text.parse().ok();
    let allowed = value.filter(|share| (0.0..=1.0).contains(share));
    allowed.ok_or_else(|| "expected a number between 0 and 1".into())
}

/// Does what is asked with experts.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    match arguments {
        Arguments::List(arguments) => list(arguments),
        Arguments::Export(arguments) => export(arguments, device),
        Arguments::Import(arguments) => enter(arguments, device),
        Arguments::Remove(arguments) => leave(arguments),
    }
}

/// An expert of the model.
#[derive(Debug, Serialize)]
struct Row {
    expert: u64,
    /// The task that it was made for; none of an imported one that answers for none.
    task: Option<String>,
    /// `drawn`, `copied` or `imported`.
    origin: &'static str,
    /// The expert that it was copied from.
    parent: Option<u64>,
    rank: usize,
    scaling: f64,
    targets: Vec<&'static str>,
    bytes: u64,
}

fn list(arguments: &List) -> Result<()> {
    let saved = checkpoint_of(&arguments.model)?;
    tell_of_damage(&saved);
    let rows = rows(&saved);
    if arguments.json {
        return print_json(&rows);
    }
    let mut out = terminal::out();
    writeln!(
        out,
        "expert  origin    rank  scaling        kB  targets                   task"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:>6}  {:<8}  {:>4}  {:>7.3}  {:>8.1}  {:<24}  {}",
            row.expert,
            row.origin,
            row.rank,
            row.scaling,
            row.bytes as f64 / 1e3,
            row.targets.join(" "),
            row.task.as_deref().unwrap_or("–")
        )?;
    }
    Ok(())
}

fn rows(saved: &Saved) -> Vec<Row> {
    let experts = saved.state.layout.experts.iter();
    let rows = experts.map(|stored| {
        let (info, origin) = (&stored.is, &stored.is.origin);
        Row {
            expert: info.id.0,
            task: (!origin.task.is_empty()).then(|| origin.task.clone()),
            origin: match (&origin.imported, origin.parent) {
                (Some(_), _) => "imported",
                (None, Some(_)) => "copied",
                (None, None) => "drawn",
            },
            parent: origin.parent.map(|id| id.0),
            rank: info.lora.rank,
            scaling: info.lora.scaling(),
            targets: info.targets.iter().map(|it| it.name()).collect(),
            bytes: stored.part.bytes,
        }
    });
    rows.collect()
}

fn export(arguments: &Export, device: Option<DeviceChoice>) -> Result<()> {
    let (saved, base) = arguments.base.open(&arguments.model, device)?;
    let trained = Trained::on_base(saved, &base)?;
    let task = trained.task(&arguments.task)?;
    if !trained.answers(task) {
        bail!(Failure::new(
            format!("task {} has not been learnt yet", arguments.task),
            "finish the run with `moe-cl train --resume`, or take a task that it has learnt",
        ));
    }
    let options = ExportOptions {
        max_gap: arguments.max_gap,
        merged: arguments.merged,
    };
    let mut display = ProgressDisplay::new();
    let exported = trained.export(task, &arguments.to, &options, &mut display)?;
    drop(display);
    if arguments.json {
        let gap = exported.gap.map(|gap| {
            json!({
                "texts": gap.texts, "logits_mean": gap.mean, "logits_largest": gap.largest,
                "score_before": gap.before, "score_after": gap.after,
            })
        });
        let experts: Vec<u64> = exported.experts.iter().map(|id| id.0).collect();
        return print_json(&json!({
            "to": arguments.to, "experts": experts, "made": made(&exported), "gap": gap, "head": exported.head,
        }));
    }
    let mut out = terminal::out();
    writeln!(out, "written to  {}", arguments.to.display())?;
    writeln!(out, "what        {}", made(&exported))?;
    match exported.gap {
        None => writeln!(out, "gap         none: it answers as the model does")?,
        Some(gap) => writeln!(
            out,
            "gap         {:.4} where the model scores {:.4}, on {} texts; logits differ by {:.4} in the mean, {:.4} at most",
            gap.after, gap.before, gap.texts, gap.mean, gap.largest
        )?,
    }
    if exported.head {
        writeln!(
            out,
            "head        head.safetensors, and head.py that applies it"
        )?;
    }
    Ok(())
}

fn made(exported: &Exported) -> String {
    let experts: Vec<String> = exported.experts.iter().map(ToString::to_string).collect();
    let experts = experts.join(" and ");
    match exported.made {
        Made::Alone => format!("expert {experts}, which answers alone"),
        Made::Summed => format!("the sum of experts {experts}"),
        Made::Joined => format!("experts {experts}, joined with the mean of their weights"),
        Made::Nearest => {
            format!("expert {experts} alone, which comes nearest to the mixture")
        }
        Made::Decoder => "the decoder, all of whose weights were trained".into(),
    }
}

fn enter(arguments: &Import, device: Option<DeviceChoice>) -> Result<()> {
    let (_, base) = arguments.base.open(&arguments.model, device)?;
    let test = arguments.data.as_ref().map(|file| file.canonicalize());
    let task = arguments.task.as_ref().map(|name| TaskConfig {
        name: name.clone(),
        train: arguments.adapter.clone(),
        dev: None,
        test: arguments.data.clone(),
        labels: None,
        instruction: arguments.instruction.clone(),
        objective: None,
        metric: None,
    });
    let task = match (task, test) {
        (Some(task), Some(file)) => Some(TaskConfig {
            // From here, and not from the folder of the run's own data.
            test: Some(file.unwrap_or_else(|_| task.test.clone().unwrap_or_default())),
            ..task
        }),
        (task, _) => task,
    };
    if task
        .as_ref()
        .is_some_and(|task| task.name.trim().is_empty())
    {
        bail!(Failure::new(
            "the task's name is empty",
            "give it one with --task NAME"
        ));
    }
    let other = arguments.base.base.allow_other_base;
    let imported = import(
        &arguments.model,
        &base,
        &arguments.adapter,
        task.as_ref(),
        other,
    )?;
    for warning in &imported.warnings {
        tell!("warning: {warning}");
    }
    if arguments.json {
        return print_json(&json!({
            "expert": imported.expert.0, "task": arguments.task, "rows": imported.rows,
        }));
    }
    let told = match &arguments.task {
        Some(name) => format!("task {name}, {} rows kept to score it on", imported.rows),
        None => "no task; `moe-cl expert list` shows it".into(),
    };
    Ok(writeln!(
        terminal::out(),
        "expert {}: {told}",
        imported.expert
    )?)
}

fn leave(arguments: &Remove) -> Result<()> {
    let which = match (&arguments.task, arguments.expert) {
        (Some(name), _) => Which::OfTask(name.clone()),
        (None, id) => Which::Expert(id.unwrap_or_default()),
    };
    let id = remove(&arguments.model, &which)?;
    Ok(writeln!(terminal::out(), "expert {id} is taken out")?)
}
