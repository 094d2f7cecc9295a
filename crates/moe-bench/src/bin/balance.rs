//! `balance [--steps N] [--seeds N] …`: balance and task loss of a noisy top-k mixture, without its losses and with them.

use clap::Parser;
use moe_bench::balance::{Options, run};

#[derive(Parser)]
#[command(
    name = "balance",
    about = "Trains a small noisy top-k mixture on a skewed stream, without losses for balance and with them"
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    moe_kernels::set_up_process();
    run(&Arguments::parse().options, &mut std::io::stdout())
}
