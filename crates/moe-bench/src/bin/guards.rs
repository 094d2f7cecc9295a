//! `guards` names the kernels; `guards NAME CALLS` calls one, for an instruction counter to watch.

use std::io::Write;

use anyhow::{Context, ensure};
use moe_bench::guards::{KERNELS, run};

fn main() -> anyhow::Result<()> {
    moe_kernels::set_up_process();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, calls] = arguments.as_slice() else {
        for (name, _) in KERNELS {
            writeln!(std::io::stdout(), "{name}")?;
        }
        return Ok(());
    };
    let calls = calls.parse().context("usage: guards [NAME CALLS]")?;
    ensure!(run(name, calls), "no kernel {name}; `guards` names them");
    Ok(())
}
