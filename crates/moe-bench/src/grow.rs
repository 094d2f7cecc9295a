//! What it costs to learn one more task, the more tasks a model has: whole processes of the `moe-cl` command on a base of a few
//! thousand random weights, so that everything but the optimiser steps shows.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::Args;
use moe_cl::training::RunTimes;

use crate::tiny::{write_base, write_task};

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Numbers of earlier tasks at which one more is timed
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1,10,100"
    )]
    tasks: Vec<usize>,
    /// The continual method
    #[arg(long, value_name = "NAME", default_value = "moe_cl")]
    method: String,
    /// Outputs of the task recognizer's random map
    #[arg(long, value_name = "N", default_value_t = 1024)]
    features: usize,
}

/// Times of which the median is said, the task in question and those before it.
const TIMED: usize = 3;

/// Learns one task after another and prints a line for each of the numbers asked for.
///
/// # Errors
/// When the command is not beside this program, or one of its processes fails.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.with_file_name("moe-cl");
    ensure!(
        program.is_file(),
        "{} is not built: cargo build --release -p moe-cli",
        program.display()
    );
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    write_base(&folder.join("base"))?;
    write_task(folder, 0)?;
    let config = format!(
        "name = \"grow\"\n[base]\nsource = \"base\"\n[data]\nroot = \".\"\n[adapters]\nrank = 4\n[method]\nname = \"{}\"\n\
         [router]\nfeatures = {}\n[training]\nepochs = 1\n[[tasks]]\nname = \"t0\"\ntrain = \"t0.jsonl\"\ntest = \"t0.jsonl\"\n",
        options.method, options.features
    );
    fs::write(folder.join("grow.toml"), config)?;
    let moe_cl = |arguments: &[&str]| -> anyhow::Result<f64> {
        let start = Instant::now();
        let status = Command::new(&program)
            .current_dir(folder)
            .env("MOE_CL_CACHE", folder.join("cache"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "moe-cl {} failed", arguments.join(" "));
        Ok(start.elapsed().as_secs_f64())
    };
    moe_cl(&["train", "--config", "grow.toml", "--out", "model"])?;
    let most = options.tasks.iter().copied().max().unwrap_or(0);
    writeln!(
        out,
        "earlier tasks  seconds  peak MB  manifest kB  parts MB  log kB  result kB"
    )?;
    let (mut seconds, model) = (Vec::new(), folder.join("model"));
    for earlier in 1..=most {
        let name = write_task(folder, earlier)?;
        let file = format!("{name}.jsonl");
        let learn = [
            "learn", "model", "--data", &file, "--name", &name, "--test", &file,
        ];
        seconds.push(moe_cl(&learn)?);
        if options.tasks.contains(&earlier) {
            let mut last: Vec<f64> = seconds.iter().rev().take(TIMED).copied().collect();
            last.sort_by(f64::total_cmp);
            let times: RunTimes = serde_json::from_slice(&fs::read(model.join("times.json"))?)?;
            writeln!(
                out,
                "{earlier:13}  {:7.2}  {:7.0}  {:11.0}  {:8.1}  {:6.0}  {:9.0}",
                last[last.len() / 2],
                times.peak_memory.unwrap_or(0) as f64 / 1e6,
                size(&newest(&model.join("checkpoints"))?)? as f64 / 1e3,
                size(&model.join("parts"))? as f64 / 1e6,
                size(&model.join("events.jsonl"))? as f64 / 1e3,
                size(&model.join("result.json"))? as f64 / 1e3,
            )?;
        }
    }
    Ok(())
}

/// The entry of a folder whose name is the last.
fn newest(folder: &Path) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let newest = entries.into_iter().map(|entry| entry.path()).max();
    newest.with_context(|| format!("{} is empty", folder.display()))
}

/// Bytes of a file, or of the files in a folder.
fn size(path: &Path) -> anyhow::Result<u64> {
    if path.is_file() {
        return Ok(fs::metadata(path)?.len());
    }
    let mut total = 0;
    for entry in fs::read_dir(path)? {
        total += entry?.metadata()?.len();
    }
    Ok(total)
}
