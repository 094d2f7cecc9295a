//! A model's directory as an input: its manifest, and its parts.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Context;
use burn::tensor::Device;
use moe_cl::config::Experiment;
use moe_cl::directory::{Part, Saved, newest_saved};
use moe_cl::events::{Event, Recorder};
use moe_cl::training::{RunOptions, Trained, train};
use moe_cl::{Base, Error};
use tempfile::TempDir;

use super::targets::written;
use crate::tiny::{write_base, write_task};

/// A checkpoint whose state is the input, with the seal that it has.
pub(super) fn state(input: &[u8], folder: &Path) -> bool {
    let step = folder.join("checkpoints/step-00000001");
    let made = step.exists() || fs::create_dir_all(&step).is_ok();
    if !made || !sealed(input, &step) {
        return false;
    }
    match Saved::open(&step) {
        Ok(_) => true,
        // It was read, and names parts that are not here.
        Err(Error::Checkpoint { path, .. }) => path.starts_with(folder.join("parts")),
        Err(_) => false,
    }
}

/// Writes a manifest and its seal.
fn sealed(state: &[u8], step: &Path) -> bool {
    let seal = serde_json::to_vec(&Part::of(state)).unwrap_or_default();
    written("state.json", state, step).is_some() && written("state.seal", &seal, step).is_some()
}

/// A model with one part in the place of another: the first byte says of which, the rest is the part. Its hash is right.
pub(super) fn part(input: &[u8], folder: &Path) -> bool {
    static MODEL: OnceLock<Option<(TempDir, Base, Saved)>> = OnceLock::new();
    let Some((model, base, saved)) = MODEL.get_or_init(|| tiny_model().ok()) else {
        return false;
    };
    let [which, content @ ..] = input else {
        return false;
    };
    let run = folder.join("run");
    let step = run.join("checkpoints/step-00000001");
    if !step.exists() {
        let parts = model.path().join("run/parts");
        let made = fs::create_dir_all(&step)
            .and_then(|()| fs::write(run.join("config.toml"), ""))
            .and_then(|()| fs::create_dir_all(run.join("parts")))
            .and_then(|()| {
                fs::read_dir(parts)?.try_for_each(|part| {
                    let part = part?;
                    let to = run.join("parts").join(part.file_name());
                    fs::copy(part.path(), to).map(|_| ())
                })
            });
        if made.is_err() {
            return false;
        }
    }
    let parts: Vec<&Part> = saved.state.parts().collect();
    let old = parts[usize::from(*which) % parts.len()];
    let new = Part::of(content);
    let (Ok(state), Ok(old), Ok(new_text)) = (
        serde_json::to_string(&saved.state),
        serde_json::to_string(old),
        serde_json::to_string(&new),
    ) else {
        return false;
    };
    let state = state.replace(&old, &new_text);
    let path = run.join("parts").join(new.sha256());
    let is_new = !path.exists();
    let read = fs::write(&path, content).is_ok()
        && sealed(state.as_bytes(), &step)
        && Trained::open(&run, base).is_ok();
    if is_new {
        fs::remove_file(path).ok();
    }
    read
}

/// A model of two tasks on a base of a few thousand weights.
fn tiny_model() -> anyhow::Result<(TempDir, Base, Saved)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    write_base(&path.join("base"))?;
    let mut text = format!(
        "name = \"part\"\n[data]\nroot = {:?}\n[adapters]\nrank = 2\n[router]\nfeatures = 16\n[training]\nepochs = 1\n",
        path.display().to_string()
    );
    for task in 0..2 {
        let name = write_task(path, task)?;
        text += &format!(
            "[[tasks]]\nname = \"{name}\"\ntrain = \"{name}.jsonl\"\ntest = \"{name}.jsonl\"\n"
        );
    }
    let experiment = Experiment::parse(&text, Path::new("part.toml"), &[])?;
    let base = Base::load(&path.join("base"), &Device::flex())?;
    let run = path.join("run");
    train(
        &experiment,
        &base,
        &RunOptions::new(run.clone(), false),
        &mut Nobody,
    )?;
    let saved = newest_saved(&run, |_| true)?;
    Ok((folder, base, saved.context("a run leaves a checkpoint")?))
}

/// Takes note of nothing.
struct Nobody;

impl Recorder for Nobody {
    fn record(&mut self, _: &Event) -> std::io::Result<()> {
        Ok(())
    }
}
