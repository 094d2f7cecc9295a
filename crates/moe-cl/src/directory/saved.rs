//! A checkpoint read back: a manifest that proves its own integrity, and where its parts are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Part, Parts, Stage, State, Times,
    checkpoints::{SEAL, listed, seal},
    checkpoints_of,
    state::{FORMAT, STATE},
};
use crate::error::{Error, Result};

/// A checkpoint that has been read back.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its directory.
    pub path: PathBuf,
    /// What it says.
    pub state: State,
    /// When that was, and how long it took.
    pub times: Times,
    /// Where its parts are.
    pub parts: Parts,
    /// Newer checkpoints of the run that are damaged, and were passed over for this one, and what else is. Whoever talks to people
    /// says so.
    pub passed_over: Vec<String>,
}

impl Saved {
    /// Reads the checkpoint directory `path`. Its parts are there; their content is checked when it is read.
    ///
    /// # Errors
    /// When a file is missing, torn or of another format.
    pub fn open(path: &Path) -> Result<Self> {
        let damaged = |reason: String| Error::Checkpoint {
            path: path.into(),
            reason,
        };
        let read = |name: &str| {
            fs::read(path.join(name)).map_err(|error| damaged(format!("{name}: {error}")))
        };
        let (read_bytes, sealed) = (read(STATE)?, read(SEAL)?);
        let whole = sealed
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<Part>(line).ok())
            .find_map(|part| part.mend(read_bytes.clone()));
        let bytes =
            whole.ok_or_else(|| damaged(format!("{STATE} does not match its recorded hash")))?;
        if let Ok(Format { format }) = serde_json::from_slice(&bytes)
            && format != FORMAT
        {
            return Err(Error::CheckpointFormat {
                path: path.into(),
                found: format,
                reads: FORMAT,
            });
        }
        let state: State =
            serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{STATE}: {error}")))?;
        let (times, passed_over) = match Times::read(path) {
            Ok(times) => (times, Vec::new()),
            Err(error) => {
                let place = path.display();
                let warning =
                    format!("{place}: {error}; it is not known any more when tasks were learnt");
                (Times::default(), vec![warning])
            }
        };
        // Below a run's directory, whatever that is called today.
        let whole = path.canonicalize();
        let whole = whole.map_err(|error| damaged(error.to_string()))?;
        let run = whole.parent().and_then(Path::parent);
        let parts = Parts::of_run(run.ok_or_else(|| damaged("is in no run's directory".into()))?);
        state.parts().try_for_each(|part| parts.check(part))?;
        Ok(Self {
            path: path.into(),
            state,
            times,
            parts,
            passed_over,
        })
    }

    /// Writes what is mended of it, for the one process that writes: the manifest now, parts when they are read.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn mending(self) -> Result<Self> {
        let bytes =
            serde_json::to_vec(&self.state).map_err(|error| self.damaged(error.to_string()))?;
        let seal = seal(&bytes).map_err(|error| self.damaged(error.to_string()))?;
        for (name, bytes) in [(STATE, bytes), (SEAL, seal.into_bytes())] {
            let path = self.path.join(name);
            if fs::read(&path).is_ok_and(|there| there == bytes) {
                continue;
            }
            moe_core::atomic::write_file(&path, &bytes)
                .map_err(|source| Error::File { path, source })?;
        }
        Ok(Self {
            parts: self.parts.mending(),
            ..self
        })
    }

    /// A part of JSON.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn json<T: DeserializeOwned>(&self, part: &Part) -> Result<T> {
        serde_json::from_slice(&self.parts.get(part)?)
            .map_err(|error| self.damaged(error.to_string()))
    }

    /// The scores so far, the untrained model's first.
    ///
    /// # Errors
    /// When a part is damaged.
    pub fn stages(&self) -> Result<Vec<Stage>> {
        let stages = self.state.stages.iter();
        stages.map(|part| self.json(part)).collect()
    }

    /// An error about this checkpoint.
    pub fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Checkpoint {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }
}

/// All that is read of a manifest of another format.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The newest checkpoint of the run in `run` that `wanted` takes, with what was passed over for it; none where there is none at all.
///
/// # Errors
/// As [`newest`].
pub fn newest_saved(run: &Path, wanted: impl Fn(&State) -> bool) -> Result<Option<Saved>> {
    let (saved, passed_over) = newest(run, wanted, |saved| Ok(saved.clone()))?;
    Ok(saved.map(|mut saved| {
        saved.passed_over.splice(0..0, passed_over);
        saved
    }))
}

/// The newest checkpoint of the run in `run` that `wanted` takes and `read` can make something of, with a warning for each damaged
/// one that was passed over; none where there is none at all.
///
/// # Errors
/// When the directory cannot be listed, when a checkpoint is of another format, or when there are checkpoints and all are damaged.
pub fn newest<T>(
    run: &Path,
    wanted: impl Fn(&State) -> bool,
    read: impl Fn(&Saved) -> Result<T>,
) -> Result<(Option<T>, Vec<String>)> {
    let mut damaged = Vec::new();
    let passed_over = |damaged: Vec<Error>| {
        let warning = |error: &Error| format!("{error}; the one before it is used");
        damaged.iter().map(warning).collect()
    };
    for path in listed(&checkpoints_of(run))?.into_iter().rev() {
        let opened = Saved::open(&path).and_then(|saved| match wanted(&saved.state) {
            true => read(&saved).map(Some),
            false => Ok(None),
        });
        match opened {
            Ok(Some(found)) => return Ok((Some(found), passed_over(damaged))),
            Ok(None) => {}
            Err(error @ Error::Checkpoint { .. }) => damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    match damaged.last() {
        None => Ok((None, Vec::new())),
        Some(oldest) => Err(Error::RunDirectory {
            path: run.into(),
            problem: format!("has no whole checkpoint: {oldest}"),
        }),
    }
}
