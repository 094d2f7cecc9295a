//! `moe-cl generate`

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use moe_cl::Base;
use moe_cl::config::Objective;
use moe_cl::data::prompt_tokens;
use moe_cl::training::{Trained, checkpoint_of};
use moe_core::device::DeviceChoice;
use moe_core::generate::{CausalLm, Sampling, generate_with};
use moe_core::model::BaseDtype;

use crate::base::ModelBase;
use crate::failure::Failure;

/// Who writes, about what, and how boldly.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of a model, or of one of its checkpoints; without it the base writes alone
    #[arg(conflicts_with = "run")]
    model: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Task whose experts write, or `auto`: the one that the prompt seems to belong to [default: auto]
    #[arg(long, value_name = "NAME|auto")]
    task: Option<String>,
    #[command(flatten)]
    base: ModelBase,
    /// Number format of the base's matrices: f32 or bf16 [default: that of the run, else f32]
    #[arg(long, value_name = "DTYPE")]
    base_dtype: Option<BaseDtype>,
    /// What to answer
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Continue the prompt as it stands, without the task's question and the base's chat template
    #[arg(long)]
    raw: bool,
    /// Most tokens to write
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new: usize,
    /// 0 always takes the most likely token; larger is bolder
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Choose among the K most likely tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the most likely tokens that make up this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Seed of the choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Writes the answer to standard output as it comes.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    let Some(run) = arguments.model.as_ref().or(arguments.run.as_ref()) else {
        if arguments.task.is_some() {
            bail!(Failure::new("--task is of a model", "name its directory"));
        }
        let dtype = arguments.base_dtype.unwrap_or_default();
        let base = arguments
            .base
            .alone(dtype, &device.unwrap_or_default().open()?)?;
        return answer(arguments, &base, &base.decoder, None);
    };
    let task = arguments.task.as_deref().unwrap_or("auto");
    let saved = checkpoint_of(run)?;
    let mut experiment = saved.state.whole_experiment();
    if let Some(dtype) = arguments.base_dtype {
        experiment.base.dtype = dtype;
    }
    if let Some(device) = device {
        experiment.device = device.to_string();
    }
    let base = arguments.base.load(&saved, &experiment)?;
    let trained = Trained::on_base(saved, &base)?;
    let Choice { index, shared } = choose(&trained, task, &arguments.prompt)?;
    if index >= trained.learnt {
        bail!(Failure::new(
            format!("task {task} has not been learnt yet in {}", run.display()),
            "finish the run with `moe-cl train --resume`, or take a task that it has learnt",
        ));
    }
    // A text of no known task is not asked a known task's question.
    let question = (!shared).then(|| Question {
        instruction: experiment.tasks[index].instruction.as_deref(),
        labels: trained.labels(index),
    });
    let model = trained.model(index, shared).folded();
    match experiment.training.objective {
        Objective::Instruction => answer(arguments, &base, &model, question),
        Objective::Heads => {
            eprintln!(
                "warning: this run learnt to classify with heads, not to write: what follows is the base's, more or less"
            );
            answer(arguments, &base, &model, None)
        }
    }
}

/// Who writes.
struct Choice {
    /// The task, or the nearest one.
    index: usize,
    /// Whether the text belongs to no known task and the experts that all tasks share write.
    shared: bool,
}

/// The task of that name, or for `auto` the one that the router infers, said on standard error.
fn choose(trained: &Trained<'_>, task: &str, prompt: &str) -> Result<Choice> {
    if task != "auto" {
        return Ok(Choice {
            index: trained.task(task)?,
            shared: false,
        });
    }
    let Some(routed) = trained.infer(prompt)? else {
        bail!(Failure::new(
            "the task cannot be inferred: the prompt is empty, or no task has been learnt yet",
            "name a task: --task NAME",
        ));
    };
    let name = &trained.experiment.tasks[routed.task].name;
    let shared = !routed.known && trained.has_fallback(routed.task);
    match (routed.known, shared) {
        (true, _) => eprintln!("task: {name} (inferred)"),
        (false, true) => {
            eprintln!("task: none that is known; the shared expert writes (nearest: {name})")
        }
        (false, false) => eprintln!("task: none that is known; the nearest, {name}, writes"),
    }
    Ok(Choice {
        index: routed.task,
        shared,
    })
}

/// How a task asks about its texts.
struct Question<'a> {
    instruction: Option<&'a str>,
    labels: &'a [String],
}

/// Continues the prompt: in the words of the task where there is one, else as a turn of a chat where the base knows chats.
fn answer(
    arguments: &Arguments,
    base: &Base,
    model: &impl CausalLm,
    question: Option<Question<'_>>,
) -> Result<()> {
    let chat = base.chat.as_ref();
    let text = &arguments.prompt;
    let tokenizer = &base.tokenizer;
    let prompt = match question {
        // Whoever writes the whole prompt writes its control tokens too.
        _ if arguments.raw => tokenizer.encode(text, true),
        Some(question) => {
            prompt_tokens(tokenizer, chat, question.instruction, question.labels, text)
        }
        None if chat.is_some() => prompt_tokens(tokenizer, chat, None, &[], text),
        None => tokenizer.encode_text(text, true),
    }?;
    if prompt.is_empty() {
        bail!(Failure::new("the prompt is empty", "write --prompt TEXT"));
    }
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        seed: arguments.seed,
        ..Sampling::greedy()
    };
    let eos = &base.decoder.config().eos_token_ids;
    let mut tokens = Vec::new();
    let mut shown = String::new();
    let mut outcome = Ok(());
    generate_with(
        model,
        &[prompt],
        arguments.max_new,
        &sampling,
        eos,
        |_, token| {
            tokens.push(token);
            if outcome.is_ok() {
                outcome = show(base, &tokens, &mut shown);
            }
        },
    );
    outcome?;
    Ok(writeln!(stdout())?)
}

/// Prints what `tokens` say beyond `shown`; a character whose bytes are not all there yet waits.
fn show(base: &Base, tokens: &[u32], shown: &mut String) -> Result<()> {
    let text = base.tokenizer.decode(tokens, true)?;
    let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    if let Some(new) = whole.strip_prefix(shown.as_str()) {
        let mut out = stdout().lock();
        out.write_all(new.as_bytes())?;
        out.flush()?;
        *shown = whole.to_string();
    }
    Ok(())
}
