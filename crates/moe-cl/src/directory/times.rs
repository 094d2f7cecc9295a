//! What a checkpoint tells that is not the same when the same run is made again.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::checked;

/// Name of its file.
const TIMES: &str = "times.json";

/// When and how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// Seconds spent in optimiser steps.
    pub training_seconds: f64,
    /// By the name of a learnt task, when it was done: seconds since 1970-01-01 UTC.
    pub learnt: BTreeMap<String, f64>,
}

impl Times {
    /// Writes them into the folder of a checkpoint.
    pub(super) fn write(&self, checkpoint: &Path) -> io::Result<()> {
        fs::write(checkpoint.join(TIMES), checked::to_line(self, b"")?)
    }

    /// Those of a checkpoint; an error where they are not what was written.
    pub(super) fn read(checkpoint: &Path) -> Result<Self, String> {
        let read = || -> io::Result<Self> {
            let bytes = fs::read(checkpoint.join(TIMES))?;
            Ok(checked::from_line(&bytes, b"")?)
        };
        read().map_err(|error| format!("{TIMES}: {error}"))
    }
}
