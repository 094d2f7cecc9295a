//! `moe [--experts 8,16,32,64] [--dtype f32|bf16] …`: a sparse mixture's experts against one dense product of the same active FLOPs.

use clap::Parser;
use moe_bench::moe::{Options, run};

#[derive(Parser)]
#[command(
    name = "moe",
    about = "Times the experts of a sparse mixture against one dense product of the same active FLOPs"
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    moe_kernels::set_up_process();
    run(&Arguments::parse().options, &mut std::io::stdout())
}
