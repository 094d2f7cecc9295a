//! `fuzz [TARGET…] [--minutes N] [--executions N]`: the parsers under inputs that nobody wrote.

use clap::Parser;
use moe_bench::fuzz::{Options, run};

#[derive(Parser)]
#[command(
    name = "fuzz",
    about = "Runs parsers on valid inputs with small changes"
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    run(&Arguments::parse().options, &mut std::io::stdout())
}
