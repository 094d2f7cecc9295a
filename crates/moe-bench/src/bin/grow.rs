//! `grow [--tasks 1,10,100] [--method NAME]`: what it costs to learn one more task, the more tasks a model has.

use clap::Parser;
use moe_bench::grow::{Options, run};

#[derive(Parser)]
#[command(
    name = "grow",
    about = "Times `moe-cl learn` on a tiny base, the more tasks the model has"
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    run(&Arguments::parse().options, &mut std::io::stdout())
}
