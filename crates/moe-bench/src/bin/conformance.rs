//! `conformance [DIR]`: runs the project's code on every fixture below DIR and says how it compares.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        // The runner starts itself to read hostile files.
        [first, probe @ ..] if first == "--probe" => {
            moe_bench::conformance::answer_probe(probe).map(|()| ExitCode::SUCCESS)
        }
        [] => Ok(moe_bench::conformance::run(&PathBuf::from(
            "../shared/fixtures",
        ))),
        [folder] if !folder.starts_with('-') => {
            Ok(moe_bench::conformance::run(&PathBuf::from(folder)))
        }
        _ => bail!("usage: conformance [DIR]"),
    }
}
