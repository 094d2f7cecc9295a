//! How errors are shown: `error: …`, and below it `  hint: …` where there is something to advise.

use std::error::Error;
use std::fmt::{self, Write};
use std::io;

use moe_hub::{Cache, SourceError};

use crate::terminal::tell;

/// An error of the command itself, with the way out.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: String,
}

impl Failure {
    /// What happened, and what the user can do about it.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// The text for the terminal: causes after colons, each once, then the hint.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::from("error: ");
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Many errors repeat their cause's words.
        if last.contains(&cause) {
            continue;
        }
        let separator = if last.is_empty() { "" } else { ": " };
        write!(text, "{separator}{cause}").expect("a string takes every text");
        last = cause;
    }
    if let Some(hint) = error.chain().find_map(hint) {
        write!(text, "\n  hint: {}", hint.replace('\n', "\n    "))
            .expect("a string takes every text");
    }
    text
}

/// Says on standard error that the cache is not written, where that is so. A command says it once, when it has done with the cache.
pub fn warn_of(cache: &Cache) {
    if let Some(failure) = cache.failure() {
        let hint = failure.hint().unwrap_or_default();
        tell!("warning: {failure}; {hint}");
    }
}

fn hint<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a str> {
    let source = cause
        .downcast_ref::<SourceError>()
        .and_then(SourceError::hint);
    source.or_else(|| {
        cause
            .downcast_ref::<Failure>()
            .map(|failure| failure.hint.as_str())
    })
}

/// Whether the reader of our output went away, as `head` does; that is no failure.
///
/// That is none where a run was to tell how it goes: it stops, and a run that was stopped did not succeed.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    if error.chain().any(<dyn Error>::is::<moe_cl::Error>) {
        return false;
    }
    let kinds = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    kinds
        .map(io::Error::kind)
        .any(|kind| kind == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_follow_colons_and_the_hint_stands_below() {
        let error = Err::<(), _>(Failure::new("no model", "get one\nor two"))
            .context("cannot start")
            .unwrap_err();
        assert_eq!(
            message(&error),
            "error: cannot start: no model\n  hint: get one\n    or two"
        );
    }
}
