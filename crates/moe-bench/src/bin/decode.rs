//! `decode [--rounds N] [--dtype DTYPE] [--json FILE]`: tokens a second behind prompts, against llama.cpp and transformers, in turn.

use clap::Parser;
use moe_bench::decode::{self, Options, Work};

#[derive(Parser)]
#[command(
    name = "decode",
    about = "Times writing behind prompts against llama.cpp and transformers, in turn"
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Write on request: how this program runs itself
    #[arg(long, hide = true)]
    serve: bool,
    #[command(flatten)]
    work: Option<Work>,
}

fn main() -> anyhow::Result<()> {
    moe_kernels::set_up_process();
    let arguments = Arguments::parse();
    match arguments.work {
        Some(work) if arguments.serve => decode::serve(&arguments.options, work),
        _ => decode::run(&arguments.options, &mut std::io::stdout()),
    }
}
