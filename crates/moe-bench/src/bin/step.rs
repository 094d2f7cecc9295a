//! `step [--mode …] [--batch …] [--len …] …`: seconds of a training step or forward pass, and the share of its matrix products.

use std::io::Write;

use clap::Parser;
use moe_bench::step::{self, Options};

#[derive(Parser)]
#[command(name = "step", about = "Times a training step or a forward pass")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Vary the number of tasks, the length, the batch, the rank and the layers in turn
    #[arg(long, conflicts_with = "profile")]
    scale: bool,
}

fn main() -> anyhow::Result<()> {
    moe_kernels::set_up_process();
    let Arguments { options, scale } = Arguments::parse();
    let mut out = std::io::stdout();
    if scale {
        return step::scale(&options, &mut out);
    }
    writeln!(out, "{}", step::run(&options)?)?;
    Ok(())
}
