//! Sharded checkpoints with a damaged index or damaged shards.

use super::case::Case;
use super::check::Verdict;
use super::hostile::Files;
use super::probe::{self, Subject};

/// Loads every folder listed as a model, in a child process.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let listed = case.files()?;
    let mut files = Files::default();
    for (name, note) in &listed {
        let outcome = probe::ask(Subject::Model, &case.dir.join(name), &[])?;
        files.judge(name, note, outcome, |message| {
            let named = [".safetensors", ".json", ".weight"]
                .iter()
                .any(|part| message.contains(part));
            if named {
                Ok(())
            } else {
                Err("the error names neither file nor tensor".into())
            }
        });
    }
    Ok(files.verdict(case, &listed))
}
