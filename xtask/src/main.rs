//! `cargo xtask`: the project's chores. Builds in seconds, since it never depends on the tensor library.

mod alone;
mod counts;
mod cuda;
mod deny;
mod gpu;
mod guards;
mod memcheck;
mod model;
mod readme;
mod size;
mod step;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use test::Stage;

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "Tests, fixture conformance and benchmarks of moe-cl"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run test stages (all but `cuda` and `memcheck`, in this order, when none is named) and print what passed and failed
    Test {
        /// Stages to run
        stages: Vec<Stage>,
    },
    /// Compare the project's code with every fixture below a folder
    Conformance {
        /// Folder of fixtures
        #[arg(default_value = test::FIXTURES)]
        folder: PathBuf,
    },
    /// Count the instructions of the main kernels, against those on record
    Guards {
        /// Put these counts on record
        #[arg(long)]
        record: bool,
    },
    /// Run the parsers on valid inputs with small changes (a million each, or `--minutes N`); `fuzz --help` lists the parsers' options
    #[command(disable_help_flag = true)]
    Fuzz {
        /// Parsers (all when none is named), `--minutes N`, `--executions N`, `--seed N`, `--replay`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Kill runs, fill their disk, flip their bits, and compare what comes of them; `crash --help` lists the options
    #[command(disable_help_flag = true)]
    Crash {
        /// `--kills N`, `--flips N`, `--rivals N`, `--seed N`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Run the benchmarks: model_forward, moe_layer, training_step; or a program that measures: `step` (a training step against its
    /// matrix products), `scale` (the same over tasks, lengths, batches, ranks, layers), `peers` (the same against PyTorch, in turn),
    /// `decode` (writing behind prompts, against llama.cpp and transformers),
    /// `continual` (methods on streams of tasks), `grow` (learning one more task, the more tasks a model has),
    /// `moe` (the experts of a sparse mixture against one dense product), `balance` (what the losses of a router do, and cost)
    #[command(disable_help_flag = true)]
    Bench {
        /// Run this one only
        name: Option<String>,
        /// What such a program is given; `bench continual --help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let task = Arguments::parse().task;
    std::env::set_current_dir(workspace_root())?;
    let good = match task {
        Task::Test { stages } => test::run(&stages)?,
        Task::Conformance { folder } => {
            let counts = test::conformance_of(&folder)?;
            if counts.is_good() && !counts.not_run.is_empty() {
                return Ok(ExitCode::from(step::NOT_RUN));
            }
            counts.is_good()
        }
        Task::Crash { rest } => test::measure("crash", &rest)?.is_good(),
        Task::Fuzz { rest } => test::measure("fuzz", &rest)?.is_good(),
        Task::Guards { record } => guards::run(record)?.is_good(),
        Task::Bench {
            name: Some(name),
            rest,
        } if test::PROGRAMS.contains(&name.as_str()) => test::measure(&name, &rest)?.is_good(),
        Task::Bench { name, .. } => {
            let names = name
                .as_deref()
                .map_or(test::BENCHES.to_vec(), |name| vec![name]);
            test::benches(&names).run()?.is_good()
        }
    };
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The folder above xtask's own, wherever this is called from.
fn workspace_root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map(PathBuf::from).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_continual_is_handed_on() {
        let line = "xtask bench continual --suite mtl5 --out runs/x --help";
        let task = Arguments::parse_from(line.split(' ')).task;
        let Task::Bench { name, rest } = task else {
            panic!("another task");
        };
        assert_eq!(name.as_deref(), Some("continual"));
        assert_eq!(rest.join(" "), "--suite mtl5 --out runs/x --help");
    }
}
