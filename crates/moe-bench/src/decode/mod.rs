//! Writing behind prompts, against llama.cpp on the same file and transformers on the same base, in turn.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, ensure};
use burn::module::Module;
use burn::tensor::Device;
use clap::Args;
use moe_core::{
    checkpoint::Checkpoint,
    generate::{Sampling, generate},
    model::{BaseDtype, Decoder},
};
use moe_kernels::Level;
use moe_lora::{Adapted, AdapterConfig, Catalogue, GateInit, LayerRange, Routing};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    continual::fetch,
    peers::{Environment, Program, Setup, answer, hold},
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

/// What is written behind what.
#[derive(Args, Clone, Copy, Debug, Serialize)]
pub struct Work {
    /// Sequences at a time
    #[arg(long, hide = true, default_value_t = 1)]
    sequences: usize,
    /// Tokens of each prompt
    #[arg(long, hide = true, default_value_t = 16)]
    prompt: usize,
    /// Tokens written behind each
    #[arg(long, hide = true, default_value_t = 64)]
    new: usize,
    /// Through two experts and their gate in every layer
    #[arg(long, hide = true)]
    experts: bool,
}

/// A program to be compared with.
struct Peer {
    name: &'static str,
    /// Its file; [`OURS`] is this one without experts.
    program: &'static str,
    work: Work,
    /// Whether what counts is reading the prompts.
    reads: bool,
    /// What is aimed at.
    bar: f64,
}

const OURS: &str = "";

const PEERS: [Peer; 5] = [
    Peer {
        name: "llama_cpp_1",
        program: "llama_cpp.py",
        work: Work {
            sequences: 1,
            prompt: 16,
            new: 64,
            experts: false,
        },
        reads: false,
        bar: 1.0,
    },
    Peer {
        name: "llama_cpp_8",
        program: "llama_cpp.py",
        work: Work {
            sequences: 8,
            prompt: 16,
            new: 64,
            experts: false,
        },
        reads: false,
        bar: 1.0,
    },
    Peer {
        name: "llama_cpp_prompt",
        program: "llama_cpp.py",
        work: Work {
            sequences: 1,
            prompt: 480,
            new: 1,
            experts: false,
        },
        reads: true,
        bar: 3.0,
    },
    Peer {
        name: "transformers_f32",
        program: "transformers_decode.py",
        work: Work {
            sequences: 1,
            prompt: 16,
            new: 64,
            experts: false,
        },
        reads: false,
        bar: 2.0,
    },
    Peer {
        name: "without_experts",
        program: OURS,
        work: Work {
            sequences: 1,
            prompt: 16,
            new: 64,
            experts: true,
        },
        reads: false,
        bar: 0.85,
    },
];

impl Work {
    fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--sequences", self.sequences),
            ("--prompt", self.prompt),
            ("--new", self.new),
        ];
        numbers
            .into_iter()
            .flat_map(|(name, number)| [name.to_owned(), number.to_string()])
            .collect()
    }

    /// Invented tokens, the same for every program.
    fn prompts(&self) -> Vec<Vec<u32>> {
        let token = |place: usize, sequence: usize| 100 + (7 * place + 13 * sequence) % 1000;
        (0..self.sequences)
            .map(|sequence| {
                let tokens = (0..self.prompt).map(|place| token(place, sequence) as u32);
                tokens.collect()
            })
            .collect()
    }
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

/// Writes on request.
///
/// # Errors
/// When the base cannot be read or the pipes break.
pub fn serve(options: &Options, work: Work) -> anyhow::Result<()> {
    let file = fs::canonicalize(&options.setup.base).with_context(|| options.setup.base.clone())?;
    let decoder = Decoder::load_as(&Checkpoint::open(&file)?, options.dtype, &Device::flex())?;
    let prompts = work.prompts();
    let (catalogue, routing) = experts(&decoder)?;
    let adapted = Adapted::new(&decoder, &catalogue, &routing);
    let step = || {
        let (start, greedy) = (Instant::now(), Sampling::greedy());
        let written = match work.experts {
            true => generate(&adapted, &prompts, work.new, &greedy, &[]),
            false => generate(&decoder, &prompts, work.new, &greedy, &[]),
        };
        let all = written.is_ok_and(|written| written.iter().all(|it| it.len() == work.new));
        assert!(all, "as many tokens as were asked for");
        start.elapsed().as_secs_f64()
    };
    step();
    answer(
        format!("moe-cl, base in {}", options.dtype),
        step,
        || 0.0,
        std::io::stdin().lock(),
        std::io::stdout(),
    )
}

/// Two experts that are as MoE-CL trains them, and their gate, in every layer.
fn experts(decoder: &Decoder) -> anyhow::Result<(Catalogue, Routing)> {
    let config = AdapterConfig {
        layers: LayerRange::All,
        ..AdapterConfig::default()
    };
    let device = Device::flex().autodiff();
    let mut catalogue = Catalogue::new(&config, decoder.config())?;
    let [own, shared] = [1, 2].map(|seed| catalogue.add_expert(&config.lora, "", seed, &device));
    let gate = catalogue.add_gate(2, GateInit::Zeros, "", &device);
    let experts = vec![own, shared];
    Ok((catalogue.valid(), Routing::Gated { experts, gate }))
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
