//! Holds what the project's readers make of hostile files against what the notes next to them ask for.

use super::case::Case;
use super::check::{Check, Verdict};
use super::expectation::Expected;
use super::probe::Outcome;

/// Counts over the files of a case.
#[derive(Default)]
pub struct Files {
    check: Check,
    loaded: usize,
    refused: usize,
}

impl Files {
    /// Judges one file. `error_names` says what is missing from an error that has to name something.
    pub fn judge(
        &mut self,
        name: &str,
        note: &str,
        outcome: Result<Outcome, String>,
        error_names: impl Fn(&str) -> Result<(), String>,
    ) {
        let expected = Expected::read(note);
        let wrong = match outcome {
            Err(crash) => Some(crash),
            Ok(Outcome::Loaded { differences, .. }) => {
                self.loaded += 1;
                (expected == Expected::Refused)
                    .then(|| "loaded".to_string())
                    .or_else(|| differences.first().cloned())
            }
            Ok(Outcome::Refused(message)) => {
                self.refused += 1;
                let vague = error_names(&message).err();
                match expected {
                    Expected::Loads => Some(format!("was refused: {message}")),
                    Expected::Refused | Expected::Either => {
                        vague.map(|missing| format!("{missing}: {message}"))
                    }
                }
            }
        };
        self.check.holds(wrong.is_none(), || {
            format!(
                "file {name} got `{}` want `{note}`",
                wrong.unwrap_or_default()
            )
        });
    }

    /// Something found wrong outside the reading of a file.
    pub fn holds(&mut self, ok: bool, what: impl FnOnce() -> String) {
        self.check.holds(ok, what);
    }

    /// The verdict over all files; files that case.json does not list are named.
    pub fn verdict(mut self, case: &Case, listed: &[(&str, &str)]) -> Verdict {
        let entries = std::fs::read_dir(&case.dir).into_iter().flatten().flatten();
        let names = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name != "case.json");
        let mut unlisted: Vec<_> = names
            .filter(|name| listed.iter().all(|(known, _)| known != name))
            .collect();
        unlisted.sort();
        self.check.note(format!(
            "{} loaded, {} refused, none crashed",
            self.loaded, self.refused
        ));
        if !unlisted.is_empty() {
            self.check.note(format!(
                "not listed in case.json and not read: {}",
                unlisted.join(", ")
            ));
        }
        self.check.verdict()
    }
}
