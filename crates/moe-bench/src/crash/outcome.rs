//! What a run has left behind, and whether that is what another has.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use moe_cl::{
    directory::newest_saved,
    events::{Event, read_log},
};

/// The files of a run that are the same whenever it is made, by their path below it.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Whether a file or folder says when something was, or is drawn from that. (The events are compared one by one.)
fn of_times(name: &OsStr) -> bool {
    let names = [
        "lock",
        "times.json",
        "times.jsonl",
        "events.jsonl",
        "report.html",
        "tensorboard",
    ];
    names.iter().any(|it| name == *it)
}

/// Reads the files of a run.
///
/// # Errors
/// When the disk refuses.
pub fn files(run: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    read(run, run, &mut files)?;
    files.retain(|path, _| !path.components().any(|part| of_times(part.as_os_str())));
    Ok(files)
}

fn read(run: &Path, folder: &Path, files: &mut Files) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(run, &path, files)?;
        } else {
            files.insert(path.strip_prefix(run)?.to_path_buf(), fs::read(&path)?);
        }
    }
    Ok(())
}

/// What was learnt and measured, each once, without what tells of beginnings and ends: a run that was killed has more of those, and may
/// have scored what it had scored. And whether the log says that lines of it are damaged.
fn learnt(run: &Path) -> anyhow::Result<(Vec<String>, bool)> {
    let log = read_log(&run.join("events.jsonl"))?;
    let (mut events, mut met) = (Vec::new(), BTreeSet::new());
    for mut logged in log.lines {
        match &mut logged.event {
            Event::Step { seconds, .. } => *seconds = 0.0,
            Event::Evaluated {
                examples_per_second,
                ..
            } => *examples_per_second = 0.0,
            Event::Inferred { .. } | Event::LayerFigures { .. } | Event::Balance { .. } => {}
            _ => continue,
        }
        let event = serde_json::to_string(&logged.event)?;
        if met.insert(event.clone()) {
            events.push(event);
        }
    }
    Ok((events, log.passed_over.is_some()))
}

/// What an undisturbed run leaves behind.
#[derive(Debug)]
pub struct Whole {
    files: Files,
    learnt: Vec<String>,
}

impl Whole {
    /// Reads it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read(run: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            files: files(run)?,
            learnt: learnt(run)?.0,
        })
    }

    /// What is not as it should be in a run that was killed and went on: it is the same, file by file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn differences(&self, run: &Path) -> anyhow::Result<Vec<String>> {
        let files = files(run)?;
        let paths: BTreeSet<&PathBuf> = self.files.keys().chain(files.keys()).collect();
        let mut differences: Vec<String> = paths
            .into_iter()
            .filter_map(|path| match (self.files.get(path), files.get(path)) {
                (Some(_), None) => Some(format!("{} is missing", path.display())),
                (None, Some(_)) => Some(format!("{} is too much", path.display())),
                (whole, there) => (whole != there).then(|| format!("{} differs", path.display())),
            })
            .collect();
        let (events, damaged) = learnt(run)?;
        if events != self.learnt || damaged {
            differences.push("the log differs".into());
        }
        Ok(differences)
    }

    /// What is not as it should be in a run of which a bit was flipped in the file `flipped`, and that went on: its newest checkpoint
    /// and its result are the same, every part of it is whole or known to be damaged, and nothing but that file is wrong anywhere.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn differences_but(&self, run: &Path, flipped: &Path) -> anyhow::Result<Vec<String>> {
        let mut differences = Vec::new();
        let there = files(run)?;
        let newest = |files: &Files| {
            let states = files.keys().filter(|path| path.ends_with("state.json"));
            states.max().cloned()
        };
        match newest_saved(run, |_| true)? {
            Some(saved)
                if Some(saved.path.strip_prefix(run)?.join("state.json"))
                    == newest(&self.files) => {}
            _ => differences.push("the newest whole checkpoint is another".into()),
        }
        for path in self.files.keys() {
            let is_needed =
                path.ends_with("result.json") || Some(path) == newest(&self.files).as_ref();
            match there.get(path) {
                Some(bytes) if *bytes == self.files[path] => {}
                Some(_) if path == flipped && !is_needed => {}
                Some(_) => differences.push(format!("{} differs", path.display())),
                None if is_needed || path.starts_with("parts") => {
                    differences.push(format!("{} is missing", path.display()));
                }
                None => {}
            }
        }
        let (events, damaged) = learnt(run)?;
        if events != self.learnt && !damaged {
            differences.push("the log differs and does not say so".into());
        }
        Ok(differences)
    }
}
