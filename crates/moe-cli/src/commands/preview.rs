//! `moe-cl data preview`

use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use moe_cl::config::Experiment;
use moe_cl::data::{Encoder, Example, TaskData, Writer};
use moe_cl::directory::TaskSettings;
use moe_core::checkpoint::Checkpoint;
use moe_core::tokenizer::Tokenizer;
use moe_hub::BaseSource;

use crate::base;
use crate::terminal::{harmless, tell};

/// Which file, and as which task.
#[derive(Debug, Args)]
pub struct Preview {
    /// The training file of a task
    file: PathBuf,
    /// Base whose tokenizer and chat template write it [default: SmolLM2-135M-Instruct]
    #[arg(long, value_name = "BASE")]
    base: Option<BaseSource>,
    /// What is asked about each text
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Longest text in tokens
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    max_tokens: usize,
    /// Records that are shown, the first ones
    #[arg(long, value_name = "N", default_value_t = 3)]
    rows: usize,
}

/// Shows records exactly as the instruction objective learns them, with what is learnt in bold or between « and ».
pub fn run(arguments: &Preview) -> Result<()> {
    let Preview {
        file,
        instruction,
        max_tokens,
        rows,
        ..
    } = arguments;
    let (_, path) = base::fetch(arguments.base.as_ref())?;
    let checkpoint = Checkpoint::open(&path)?;
    let tokenizer = checkpoint.tokenizer()?;
    let chat = checkpoint.chat(&tokenizer)?;
    let ends = checkpoint.answer_ends(&tokenizer, chat.as_ref())?;
    let writer = Writer {
        tokenizer: &tokenizer,
        chat: chat.as_ref(),
        ends: &ends,
    };
    let mut task = task(file, instruction.clone(), *max_tokens)?;
    let settings = settings(*max_tokens)?;
    let mut encoder = Encoder::new(&settings, writer);
    task.room = encoder.longest_answer(&task)?;
    // The rows in the order of the file, which training shuffles.
    task.train = TaskData::first(&task.test, *rows);
    let mut out = stdout().lock();
    for (index, example) in encoder.learnt(&task)?.iter().enumerate() {
        let learnt = example.answer_tokens();
        let tokens = example.tokens.len();
        writeln!(out, "--- {} ({tokens} tokens, {learnt} learnt)", index + 1)?;
        writeln!(out, "{}", shown(example, &tokenizer, out.is_terminal())?)?;
    }
    for warning in encoder.take_warnings() {
        tell!("warning: {warning}");
    }
    Ok(())
}

fn settings(max_tokens: usize) -> Result<TaskSettings> {
    let experiment = experiment(Path::new("data"), None, max_tokens)?;
    Ok(TaskSettings::of(&experiment, &experiment.tasks[0]))
}

fn task(file: &Path, instruction: Option<String>, max_tokens: usize) -> Result<TaskData> {
    let experiment = experiment(file, instruction, max_tokens)?;
    Ok(TaskData::load(&experiment, 0)?)
}

/// An experiment of one task, whose texts are all shown as they are learnt.
fn experiment(file: &Path, instruction: Option<String>, max_tokens: usize) -> Result<Experiment> {
    let text = format!(
        "name = \"preview\"\n[data]\nroot = \".\"\nmax_tokens = {max_tokens}\n[training]\nobjective = \"instruction\"\n[[tasks]]\nname = \"preview\"\ntrain = \"\""
    );
    let mut experiment = Experiment::parse(&text, Path::new("preview"), &[])?;
    let task = &mut experiment.tasks[0];
    task.train = file.into();
    task.test = Some(file.into());
    task.instruction = instruction;
    Ok(experiment)
}

/// The text of an example, its answers marked.
fn shown(example: &Example, tokenizer: &Tokenizer, terminal: bool) -> Result<String> {
    let (open, close) = if terminal {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("«", "»")
    };
    let mut text = String::new();
    let mut start = 0;
    for answer in &example.answers {
        text += &harmless(&tokenizer.decode(&example.tokens[start..answer.start], false)?);
        let learnt = tokenizer.decode(&example.tokens[answer.clone()], false)?;
        text += &format!("{open}{}{close}", harmless(&learnt));
        start = answer.end;
    }
    text += &harmless(&tokenizer.decode(&example.tokens[start..], false)?);
    Ok(text)
}
