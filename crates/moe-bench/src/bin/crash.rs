//! `crash [--kills N] [--flips N]`: runs under kills, full disks, flipped bits and rivals, against runs that were left in peace.

use clap::Parser;
use moe_bench::crash::{Options, run};

#[derive(Parser)]
#[command(
    name = "crash",
    about = "Kills runs, fills their disk and flips their bits, and compares what comes of them"
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    run(&Arguments::parse().options, &mut std::io::stdout())
}
