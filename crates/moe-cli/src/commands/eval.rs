//! `moe-cl eval`

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{ArgGroup, Args, ValueEnum};
use moe_cl::config::Split;
use moe_cl::metrics::Inferred;
use moe_cl::training::{Scores, Task, Trained};
use moe_core::device::DeviceChoice;
use serde_json::json;

use super::print_json;
use crate::failure::Failure;
use crate::model::BaseArguments;
use crate::progress::ProgressDisplay;
use crate::terminal;

/// What to score, and on which texts.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["model", "run", "checkpoint"]))]
pub struct Arguments {
    /// Directory of a model, or of one of its checkpoints
    model: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Directory of one checkpoint of a model
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// A task: its texts alone are scored. `auto`: all tasks, with the task of every text inferred too
    #[arg(long, value_name = "NAME|auto", default_value = "auto")]
    task: String,
    /// Part of each task's data [default: as in the run]
    #[arg(long, value_enum)]
    split: Option<SplitName>,
    #[command(flatten)]
    base: BaseArguments,
    /// Write where the routers send the tokens of these texts, the task given: a line of JSON per layer and batch
    #[arg(long, value_name = "FILE")]
    record_routing: Option<PathBuf>,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitName {
    Dev,
    Test,
}

/// Scores the tasks of the stream and prints a line for each; with the task inferred, also where texts were sent.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    let path = [&arguments.model, &arguments.run, &arguments.checkpoint];
    let path = path.into_iter().find_map(Option::as_ref);
    let path = path.expect("clap requires one of them");
    let (saved, base) = arguments.base.open(path, device)?;
    let mut trained = Trained::on_base(saved, &base)?;
    if let Some(split) = arguments.split {
        trained.experiment.evaluation.split = match split {
            SplitName::Dev => Split::Dev,
            SplitName::Test => Split::Test,
        };
    }
    let only = match arguments.task.as_str() {
        "auto" => None,
        name => Some(trained.task(name)?),
    };
    let mut display = ProgressDisplay::new();
    let (tasks, scores) = trained.evaluate(only, &mut display)?;
    let looked_at = tasks.iter().enumerate();
    let mut looked_at = looked_at.filter(|(index, _)| only.is_none_or(|only| only == *index));
    if looked_at.all(|(_, task)| task.evaluation.is_empty()) {
        let split = &trained.experiment.evaluation.split;
        bail!(no_texts(path, *split, arguments.task.as_str()));
    }
    let inferred = match only {
        None => trained.evaluate_inferred(&tasks, &scores)?,
        Some(_) => None,
    };
    drop(display);
    if let Some(path) = &arguments.record_routing {
        trained.record_routing(only, path)?;
    }
    if arguments.json {
        let rows = tasks.iter().enumerate().map(|(index, task)| {
            json!({
                "task": task.name, "texts": task.evaluation.len(), "learnt": index < trained.learnt, "imported": trained.is_imported(index),
                "metric": task.data.metric.map_or("accuracy", |it| it.name()), "score": scores.accuracies[index],
                "inferred": inferred.as_ref().and_then(|it| it.accuracies[index]),
            })
        });
        return print_json(&json!({"tasks": rows.collect::<Vec<_>>(), "inferred": inferred}));
    }
    let mut out = terminal::out();
    write!(
        out,
        "{}",
        table(&tasks, &scores, inferred.as_ref(), &trained)
    )?;
    if let Some(inferred) = &inferred {
        write!(out, "{}", routing(&tasks, inferred, &scores.accuracies))?;
    }
    Ok(())
}

/// There is nothing to score.
fn no_texts(path: &Path, split: Split, task: &str) -> Failure {
    let (part, other) = match split {
        Split::Dev => ("dev", "test"),
        Split::Test => ("test", "dev"),
    };
    let whose = match task {
        "auto" => "any task".to_owned(),
        name => format!("task {name}"),
    };
    let message = format!(
        "{}: the model keeps no {part} texts of {whose}",
        path.display()
    );
    let way_out = format!(
        "`--split {other}` scores the others; a task has the parts that its `dev` and `test` named when it was learnt"
    );
    Failure::new(message, way_out)
}

/// A line per task that was scored, and the mean of those learnt.
fn table(
    tasks: &[Task],
    scores: &Scores,
    inferred: Option<&Inferred>,
    trained: &Trained<'_>,
) -> String {
    let learnt = trained.learnt;
    let width = names(tasks);
    let mut text = format!("{:width$}  texts  {:>8}", "task", heading(tasks));
    text += if inferred.is_some() {
        "  task inferred\n"
    } else {
        "\n"
    };
    for (index, (task, score)) in tasks.iter().zip(&scores.accuracies).enumerate() {
        let Some(score) = score else {
            if scores.accuracies.iter().flatten().count() > 0 && task.evaluation.is_empty() {
                text += &format!("{:width$}      0         –  (no texts kept)\n", task.name);
            }
            continue;
        };
        let guessed = inferred.map_or_else(String::new, |inferred| {
            format!("  {:>13}", share(inferred.accuracies[index]))
        });
        let metric = task.data.metric.map(|it| format!("  {}", it.name()));
        let mut note = metric.unwrap_or_default();
        match index {
            _ if trained.is_imported(index) => note += "  (imported)",
            _ if index >= learnt => note += "  (not learnt yet)",
            _ => {}
        }
        let texts = task.evaluation.len();
        text += &format!(
            "{:width$}  {texts:5}  {score:>8.4}{guessed}{note}\n",
            task.name
        );
    }
    // Both means are over the same tasks.
    let known = scores.accuracies.iter().take(learnt).enumerate();
    let known = known.filter_map(|(index, given)| {
        let guessed = inferred.map(|inferred| inferred.accuracies.get(index).copied().flatten());
        Some(((*given)?, guessed))
    });
    let known: Vec<(f64, Option<f64>)> = known
        .filter_map(|(given, guessed)| match guessed {
            Some(guessed) => Some((given, Some(guessed?))),
            None => Some((given, None)),
        })
        .collect();
    if !known.is_empty() {
        let count = known.len() as f64;
        let given = known.iter().map(|(given, _)| given).sum::<f64>() / count;
        let guessed: Option<f64> = known.iter().map(|(_, guessed)| *guessed).sum();
        text += &format!("mean of the {} learnt: {given:.4}", known.len());
        text += &guessed.map_or_else(
            || " (task given)\n".into(),
            |sum| format!(", task inferred: {:.4}\n", sum / count),
        );
    }
    text
}

/// What the scores are: the accuracy of labels, or what each task's metric says.
fn heading(tasks: &[Task]) -> &'static str {
    match tasks.iter().all(|task| task.data.metric.is_none()) {
        true => "accuracy",
        false => "score",
    }
}

/// Where the router sent the texts, and what that cost.
fn routing(tasks: &[Task], inferred: &Inferred, given: &[Option<f64>]) -> String {
    let width = names(tasks);
    let mut text = format!("\nsent to{:1$}", "", width.saturating_sub("sent to".len()));
    let heads: Vec<&str> = tasks[..inferred.confusion.len()]
        .iter()
        .map(|task| task.name.as_str())
        .chain(["(no known task)", "right"])
        .collect();
    text += &heads
        .iter()
        .map(|head| format!("  {head}"))
        .collect::<String>();
    text.push('\n');
    let learnt = inferred.confusion.len();
    for (index, refused) in inferred.refused.iter().enumerate() {
        let cells = (0..learnt)
            .map(|other| inferred.sent(index, other))
            .chain([*refused])
            .map(|count| count.to_string())
            .chain([share(inferred.routing_accuracy_of(index))]);
        text += &format!("{:width$}", tasks[index].name);
        for (cell, head) in cells.zip(&heads) {
            text += &format!("  {cell:>0$}", head.chars().count());
        }
        text.push('\n');
    }
    text += &format!(
        "routing accuracy {}; accuracy lost by inferring the task {}\n",
        share(inferred.routing_accuracy()),
        share(inferred.price(given))
    );
    if let Some(auroc) = inferred.open_set_auroc {
        text += &format!("open-set AUROC {auroc:.4} (learnt tasks' texts against the others')\n");
    }
    text
}

fn names(tasks: &[Task]) -> usize {
    let widths = tasks.iter().map(|task| task.name.chars().count());
    widths.chain(["sent to".len()]).max().unwrap_or(0)
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.4}"))
}
