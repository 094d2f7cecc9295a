//! `peers [--rounds N] [--dtype f32,bf16] [--json FILE] …`: a training step and a forward pass against PyTorch's, in turn.

use std::io::Write;

use clap::Parser;
use moe_bench::peers::{self, Options, Served};
use moe_bench::step::Mode;
use moe_core::model::BaseDtype;

#[derive(Parser)]
#[command(
    name = "peers",
    about = "Times a training step and a forward pass against PyTorch's, in turn"
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Do steps of ours on request: how this program runs itself
    #[arg(long, hide = true, value_enum, value_name = "MODE")]
    serve: Option<Mode>,
    /// Type of the base that is served
    #[arg(long, hide = true, default_value_t)]
    serve_dtype: BaseDtype,
}

fn main() -> anyhow::Result<()> {
    moe_kernels::set_up_process();
    let Arguments {
        options,
        serve,
        serve_dtype,
    } = Arguments::parse();
    if let Some(mode) = serve {
        return peers::serve(Served {
            mode,
            dtype: serve_dtype,
        });
    }
    write!(std::io::stdout(), "{}", peers::run(&options)?)?;
    Ok(())
}
