//! `moe-cl generate`

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use moe_cl::config::Objective;
use moe_cl::data::Turn;
use moe_cl::training::Trained;
use moe_core::device::DeviceChoice;
use moe_core::generate::{CausalLm, Held};

use crate::failure::Failure;
use crate::model::{BaseArguments, TaskName, told};
use crate::terminal::tell;
use crate::writing::Manner;

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
    task: Option<TaskName>,
    #[command(flatten)]
    base: BaseArguments,
    /// What to answer
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Continue the prompt as it stands, without the task's question and the base's chat template
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    manner: Manner,
}

/// Writes the answer to standard output as it comes.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    let sampling = arguments.manner.sampling()?;
    if arguments.prompt.is_empty() {
        bail!(Failure::new("the prompt is empty", "write --prompt TEXT"));
    }
    let turns = vec![Turn::user(arguments.prompt.clone())];
    let Some(path) = arguments.model.as_ref().or(arguments.run.as_ref()) else {
        if arguments.task.is_some() {
            bail!(Failure::new("--task is of a model", "name its directory"));
        }
        let dtype = arguments.base.base_dtype.unwrap_or_default();
        let device = device.unwrap_or_default().open()?;
        let base = arguments.base.base.alone(dtype, &device)?;
        let prompt = match base.chat {
            Some(_) if !arguments.raw => base.writer().prompt(&turns)?,
            // Whoever writes the whole prompt writes its control tokens too.
            _ if arguments.raw => base.tokenizer.encode(&arguments.prompt, true)?,
            _ => base.tokenizer.encode_text(&arguments.prompt, true)?,
        };
        let manner = &arguments.manner;
        let held = &mut Held::new(base.decoder.num_layers());
        manner.write(&base, (&base.decoder, held), &prompt, &sampling)?;
        return Ok(());
    };
    let (saved, base) = arguments.base.open(path, device)?;
    let trained = Trained::on_base(saved, &base)?;
    let task = arguments.task.clone().unwrap_or(TaskName(None));
    let who = task.answering(&trained, std::slice::from_ref(&arguments.prompt))?[0];
    if task.0.is_none() {
        tell!("task: {}", told(&trained, who));
    }
    let heads = trained.objective(who.task) == Objective::Heads;
    if heads {
        tell!(
            "warning: this task learnt to classify with a head, not to write: what follows is the base's, more or less; `moe-cl classify` asks the head"
        );
    }
    let prompt = match arguments.raw {
        true => base.tokenizer.encode(&arguments.prompt, true)?,
        // A head reads the bare text; a writer is asked.
        false if heads => base.writer().prompt(&turns)?,
        false => trained.prompt(who, turns)?,
    };
    let model = trained.model(who.task, who.shared).folded();
    let held = &mut Held::new(model.num_layers());
    let writer = (&model, held);
    arguments.manner.write(&base, writer, &prompt, &sampling)?;
    Ok(())
}
