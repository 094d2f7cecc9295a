//! The commands, one file each.

mod chat;
mod classify;
mod data;
mod demo;
#[cfg(test)]
mod documented;
mod eval;
mod expert;
mod generate;
mod init;
mod inspect;
mod learn;
mod methods;
mod preview;
mod report;
mod rollback;
mod schema;
mod tasks;
mod train;
mod upcycle;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use moe_core::device::DeviceChoice;
use serde::Serialize;

use crate::terminal;

/// Language models that keep learning new tasks without forgetting the old ones.
#[derive(Debug, Parser)]
#[command(
    name = "moe-cl",
    version,
    propagate_version = true,
    max_term_width = 120
)]
pub struct Cli {
    #[arg(long, global = true, value_name = "DEVICE", help = devices())]
    device: Option<DeviceChoice>,
    #[command(subcommand)]
    command: Command,
}

/// What `--device` takes, with the devices of this build.
fn devices() -> String {
    format!(
        "Where to compute: cpu, wgpu, vulkan, metal or cuda:N; this build has {} [default: as configured, else cpu]",
        DeviceChoice::compiled().join(", ")
    )
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A real 135M model learns four real tasks, with MoE-CL and with plain fine-tuning, side by side
    Demo(demo::Arguments),
    /// Write an experiment file for your own data, with notes on what can be changed
    Init(init::Arguments),
    /// Learn a stream of tasks as an experiment file says
    Train(train::Arguments),
    /// Learn one more task into a model that has learnt some
    Learn(learn::Arguments),
    /// What a model knows: its tasks, their experts, what they were learnt from, their scores
    Tasks(tasks::Arguments),
    /// Go back to what a model was right after a task
    Rollback(rollback::Arguments),
    /// Experts that leave a model or enter it, as PEFT adapters
    #[command(subcommand)]
    Expert(expert::Arguments),
    /// Score a model, or one of its checkpoints, on every task
    Eval(eval::Arguments),
    /// Label new texts, with the task given or inferred
    Classify(classify::Arguments),
    /// A conversation with a model, turn after turn
    Chat(chat::Arguments),
    /// Write text with a task's experts, or with a base alone
    Generate(generate::Arguments),
    /// One page over several runs, and their table
    Report(report::Arguments),
    /// Get suites of tasks, look at data files
    #[command(subcommand)]
    Data(data::Arguments),
    /// Architecture, parameters and types of a base, and the memory that training it needs
    Inspect(inspect::Arguments),
    /// Make a dense base sparse: every expert begins as a copy of the feed-forward network
    Upcycle(upcycle::Arguments),
    /// The continual-learning methods: what each needs at test time, what it stores, where it comes from
    Methods(methods::Arguments),
    /// JSON Schema of experiment files, for editors; or every key in tables, for people
    Schema(schema::Arguments),
}

/// Does what the command line says.
///
/// # Errors
/// Whatever stopped the command.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let device = cli.device;
    match cli.command {
        Command::Demo(arguments) => return demo::run(&arguments, device),
        Command::Train(arguments) => return train::run(&arguments, device),
        Command::Init(arguments) => init::run(&arguments),
        Command::Learn(arguments) => return learn::run(&arguments, device),
        Command::Tasks(arguments) => tasks::run(&arguments),
        Command::Rollback(arguments) => rollback::run(&arguments),
        Command::Expert(arguments) => expert::run(&arguments, device),
        Command::Eval(arguments) => eval::run(&arguments, device),
        Command::Classify(arguments) => classify::run(&arguments, device),
        Command::Chat(arguments) => chat::run(&arguments, device),
        Command::Generate(arguments) => generate::run(&arguments, device),
        Command::Report(arguments) => report::run(&arguments),
        Command::Data(arguments) => data::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Upcycle(arguments) => upcycle::run(&arguments, device),
        Command::Methods(arguments) => methods::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a value as JSON, for programs.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(writeln!(
        terminal::out(),
        "{}",
        serde_json::to_string_pretty(value)?
    )?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every command with those below it.
    fn all(command: clap::Command) -> Vec<clap::Command> {
        let below = command.get_subcommands().cloned().flat_map(all);
        let below: Vec<_> = below.collect();
        [vec![command], below].concat()
    }

    #[test]
    fn help_says_a_default_once_and_which_devices_there_are() {
        for mut command in all(Cli::command()) {
            let help = command.render_long_help().to_string();
            let options = help.split("\n\n").flat_map(|part| part.split("\n  -"));
            for option in options {
                let defaults = option.matches("[default:").count();
                assert!(defaults <= 1, "{}: {option}", command.get_name());
            }
        }
        let help = Cli::command().render_help().to_string();
        let device = DeviceChoice::compiled().join(", ");
        assert!(help.contains(&format!("this build has {device}")), "{help}");
    }

    #[test]
    fn no_two_options_of_a_command_clash() {
        Cli::command().debug_assert();
    }
}
