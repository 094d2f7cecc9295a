//! Writing behind prompts, against llama.cpp on the same file and transformers on the same base, in turn.

mod peer;
mod serve;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::Args;
use moe_core::{checkpoint::Checkpoint, model::BaseDtype};
use moe_kernels::Level;
use rayon::prelude::*;
use serde::Serialize;

use self::peer::{OURS, PEERS, Peer};
pub use self::{peer::Work, serve::serve};
use crate::{
    continual::fetch,
    peers::{Environment, Program, Setup, hold},
};

/// Arguments of `decode`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Pairs that are timed, one of each program in turn
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub rounds: usize,
    /// Type of our base's matrices
    #[arg(long, value_name = "DTYPE", default_value_t = BaseDtype::Stored)]
    pub dtype: BaseDtype,
    /// Peers to run, all when none is named
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PEERS.map(|peer| peer.name))]
    pub only: Vec<String>,
    /// Hold our kernels and PyTorch to these instructions: portable, avx2 or avx512 (llama.cpp's wheel has AVX2 anywhere)
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<Level>,
    /// Write the figures here as well
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would become the command's help")]
    pub setup: Setup,
}

/// What came of a peer.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    peer: String,
    /// Tokens a second: its, ours.
    theirs: f64,
    ours: f64,
    /// Median of the pairs' ratios, and their range.
    ratio: f64,
    range: [f64; 2],
    bar: f64,
}

/// Sets the peers up, times each and us in turn, prints a line each and writes the JSON.
///
/// # Errors
/// When a peer or the base cannot be had, or a program fails.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    ensure!(options.rounds > 0, "--rounds: at least one pair");
    let file = fetch(&options.setup.base)?;
    let wanted =
        |peer: &&Peer| options.only.is_empty() || options.only.iter().any(|name| name == peer.name);
    let environment = match PEERS.iter().filter(wanted).any(|peer| peer.program != OURS) {
        true => Some(options.setup.environment()?),
        false => None,
    };
    let bytes = Checkpoint::open(&file)?.bytes_in_memory(options.dtype);
    let copies = copies_a_second(bytes as usize);
    writeln!(
        out,
        "ours in {}, {:.2} GB, copied {copies:.0} times a second; kernels {}; {} pairs, medians\n{:18} {:>10} {:>10}  ratio (range)        bar",
        options.dtype,
        bytes as f64 / 1e9,
        options
            .level
            .map_or_else(Level::asked_for, Ok)
            .map_err(anyhow::Error::msg)?,
        options.rounds,
        "",
        "its tok/s",
        "ours tok/s"
    )?;
    let mut outcomes = Vec::new();
    for peer in PEERS.iter().filter(wanted) {
        let base = match peer.program {
            "transformers_decode.py" => options.setup.exported(&file)?,
            _ => file.clone(),
        };
        let outcome = measure(peer, environment.as_ref(), &base, &file, options)?;
        writeln!(
            out,
            "{:18} {:10.1} {:10.1}  {:5.2} ({:.2}–{:.2})  {:>8.2}",
            outcome.name,
            outcome.theirs,
            outcome.ours,
            outcome.ratio,
            outcome.range[0],
            outcome.range[1],
            outcome.bar
        )?;
        outcomes.push(outcome);
    }
    if let Some(path) = &options.json {
        let json = serde_json::to_vec_pretty(&outcomes)?;
        moe_core::atomic::write_file(path, &json).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn measure(
    peer: &Peer,
    environment: Option<&Environment>,
    base: &Path,
    file: &Path,
    options: &Options,
) -> anyhow::Result<Outcome> {
    let work = peer.work;
    let own = || -> anyhow::Result<Command> {
        let this = std::env::current_exe().context("cannot find this program")?;
        let mut ours = Command::new(this);
        ours.arg("--serve").args(work.arguments());
        ours.args(["--dtype", &options.dtype.to_string(), "--base"]);
        ours.arg(file);
        Ok(ours)
    };
    let mut theirs = match environment {
        Some(environment) if peer.program != OURS => {
            let mut theirs = environment.command(peer.program, base);
            theirs.args(work.arguments());
            theirs
        }
        _ => own()?,
    };
    let mut ours = own()?;
    if work.experts {
        ours.arg("--experts");
    }
    hold(&mut theirs, options.level);
    hold(&mut ours, options.level);
    let mut theirs = Program::start(peer.name, theirs)?;
    let mut ours = Program::start("ours", ours)?;
    let tokens = work.sequences * if peer.reads { work.prompt } else { work.new };
    let (mut their_rates, mut our_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let (its, own) = (theirs.step()?, ours.step()?);
        their_rates.push(tokens as f64 / its);
        our_rates.push(tokens as f64 / own);
        ratios.push(its / own);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(Outcome {
        name: peer.name,
        peer: theirs.ready.clone(),
        theirs: median(their_rates),
        ours: median(our_rates),
        range: [ratios[0], ratios[ratios.len() - 1]],
        ratio: median(ratios),
        bar: peer.bar,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How often as many bytes are copied in a second, on all threads: the best of some times.
fn copies_a_second(bytes: usize) -> f64 {
    const PIECE: usize = 1 << 20;
    let from = vec![1u8; bytes];
    let mut to = vec![0u8; bytes];
    let mut copied = || {
        let start = Instant::now();
        let pieces = to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
        start.elapsed().as_secs_f64()
    };
    let best = (0..7).map(|_| copied()).fold(f64::INFINITY, f64::min);
    1.0 / best
}
