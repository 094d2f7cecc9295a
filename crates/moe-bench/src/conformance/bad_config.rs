//! Broken config.json files next to good weights.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use moe_core::checkpoint::Checkpoint;
use moe_core::device::DeviceChoice;
use moe_core::model::Decoder;
use serde_json::Value;

use super::case::Case;
use super::check::Verdict;
use super::hostile::Files;
use super::probe::{self, Outcome, Subject};

/// Puts every config listed next to the weights that the notes name, and loads the model in a child process.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let Some(model) = model_folder(case) else {
        return Ok(Verdict::Skip(
            "the weights that its notes name are not beside it".into(),
        ));
    };
    let good: Value = serde_json::from_str(&fs::read_to_string(model.join("config.json"))?)
        .context("the good config.json")?;
    let listed = case.files()?;
    let mut files = Files::default();
    for (name, note) in &listed {
        let broken = fs::read_to_string(case.dir.join(name))
            .with_context(|| format!("cannot read {name}"))?;
        let folder = with_config(&model, &broken)?;
        let outcome = probe::ask(Subject::Model, folder.path(), &[])?;
        let changed = changed_keys(&good, &broken);
        files.judge(name, note, outcome, |message| {
            names_one_of(message, &changed)
        });
    }
    Ok(files.verdict(case, &listed))
}

/// The folder named in a note, such as `llama/some_case/model`, beside this case's group.
fn model_folder(case: &Case) -> Option<PathBuf> {
    let notes = case.notes();
    let mut words = notes
        .split_whitespace()
        .map(|word| word.trim_end_matches(['.', ',', ';']));
    let relative = words.find(|word| word.contains('/'))?;
    let root = case.dir.parent()?;
    Some(root.join(relative)).filter(|folder| folder.join("config.json").is_file())
}

/// A copy of a model folder with another config.json.
pub fn with_config(model: &Path, config: &str) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    for entry in fs::read_dir(model)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            // Not `fs::copy`: fixtures may be read-only, and the copy's config has to be replaced.
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            fs::write(folder.path().join(name), bytes)?;
        }
    }
    fs::write(folder.path().join("config.json"), config)?;
    Ok(folder)
}

/// Top-level keys whose values differ from the good config's, and the keys inside them; none when the broken one is not JSON.
fn changed_keys(good: &Value, broken: &str) -> BTreeSet<String> {
    let Ok(broken) = serde_json::from_str::<Value>(broken) else {
        return BTreeSet::new();
    };
    let mut changed = BTreeSet::new();
    collect_changes(good, &broken, &mut changed);
    changed
}

fn collect_changes(good: &Value, broken: &Value, changed: &mut BTreeSet<String>) {
    let (Some(good), Some(broken)) = (good.as_object(), broken.as_object()) else {
        return;
    };
    for key in good.keys().chain(broken.keys()) {
        let (before, after) = (
            good.get(key).unwrap_or(&Value::Null),
            broken.get(key).unwrap_or(&Value::Null),
        );
        if before != after {
            changed.insert(key.clone());
            collect_changes(before, after, changed);
        }
    }
}

/// An error about a config names a key that was changed, or tensors that no longer fit; one about broken JSON names the file.
fn names_one_of(message: &str, changed: &BTreeSet<String>) -> Result<(), String> {
    let named = if changed.is_empty() {
        message.contains("config.json")
    } else {
        changed.iter().any(|key| message.contains(key))
    };
    if named {
        Ok(())
    } else {
        Err(format!("the error names none of {changed:?}"))
    }
}

/// Opens the folder and loads every weight on the CPU.
pub fn read_hostile(path: &Path) -> Outcome {
    let loaded = Checkpoint::open(path).and_then(|checkpoint| {
        Decoder::load(&checkpoint, &DeviceChoice::Cpu.open()?)?;
        Ok(checkpoint.names().count())
    });
    match loaded {
        Ok(items) => Outcome::Loaded {
            items,
            differences: Vec::new(),
        },
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_keys_are_found_at_every_level() {
        let good =
            serde_json::json!({"a": 1, "rope": {"type": "default", "theta": 1.0}, "gone": 2});
        let keys = changed_keys(
            &good,
            r#"{"a": 1, "rope": {"type": "spiral", "theta": 1.0}}"#,
        );
        assert_eq!(
            keys.into_iter().collect::<Vec<_>>(),
            ["gone", "rope", "type"]
        );
    }
}
