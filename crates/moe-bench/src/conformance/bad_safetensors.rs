//! Damaged and unusual safetensors files.

use std::path::Path;

use moe_core::checkpoint::safetensors::SafetensorsFile;

use super::case::Case;
use super::check::Verdict;
use super::hostile::Files;
use super::probe::{self, Outcome, Subject};
use super::tensors::Tensors;

/// Reads every file listed in a child process.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let listed = case.files()?;
    let mut files = Files::default();
    for (name, note) in &listed {
        let outcome = probe::ask(Subject::Safetensors, &case.dir.join(name), &[])?;
        let names_the_file = |message: &str| {
            if message.contains(name) {
                Ok(())
            } else {
                Err("the error does not name the file".to_string())
            }
        };
        // The file is sound, but no model may take an integer for a weight.
        if note.contains("model loader must reject")
            && let Ok(Outcome::Loaded { differences, .. }) = &outcome
        {
            let refused = differences
                .iter()
                .any(|difference| difference.contains(INTEGERS));
            files.holds(refused, || {
                format!("file {name} got `every tensor was read as floats` want `{note}`")
            });
            files.judge(
                name,
                note,
                Ok(Outcome::Loaded {
                    items: 0,
                    differences: Vec::new(),
                }),
                names_the_file,
            );
            continue;
        }
        files.judge(name, note, outcome, names_the_file);
    }
    Ok(files.verdict(case, &listed))
}

const INTEGERS: &str = "integers refused as weights";

/// Opens the file, reads every tensor, and compares with the reference crate's reading where that reads it too.
pub fn read_hostile(path: &Path) -> Outcome {
    let file = match SafetensorsFile::open(path) {
        Ok(file) => file,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let reference = Tensors::read(path).ok();
    let mut differences = Vec::new();
    let names: Vec<&str> = file.names().collect();
    for &name in &names {
        let want = reference
            .as_ref()
            .and_then(|tensors| tensors.f32(name).ok());
        match (file.read_f32(name), want) {
            (Ok(got), Some(want)) => {
                let same = got.len() == want.len()
                    && got
                        .iter()
                        .zip(&want)
                        .all(|(got, want)| got.to_bits() == want.to_bits());
                if !same {
                    differences.push(format!("tensor {name} got {got:?} want {want:?}"));
                }
            }
            (Err(error), Some(_)) => {
                differences.push(format!("tensor {name} was refused: {error}"))
            }
            (Err(_), None) => differences.push(format!("tensor {name}: {INTEGERS}")),
            (Ok(_), None) => {}
        }
    }
    if let Some(reference) = reference {
        let missing = reference.names().filter(|name| !names.contains(name));
        differences.extend(missing.map(|name| format!("tensor {name} is not listed")));
    }
    Outcome::Loaded {
        items: names.len(),
        differences,
    }
}
