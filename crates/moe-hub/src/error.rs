//! Why a base or data could not be had, and what the user can do about it.

use std::fmt::Display;
use std::path::Path;

/// A model or data file could not be fetched. `Display` is what happened; [`SourceError::hint`] is the way out.
/// Neither says what an address holds of passwords and tokens, whoever wrote it down.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    message: String,
    hint: Option<String>,
}

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, SourceError>;

impl SourceError {
    /// An error with nothing to advise.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: without_secrets(&message.into()),
            hint: None,
        }
    }

    /// A failed file operation: what was tried (`read`, `write`, …), on which path, and why it failed.
    pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(format!("cannot {action} {}: {error}", path.display()))
    }

    /// Says first where it happened: `place: message`.
    pub fn within(mut self, place: impl Display) -> Self {
        self.message = without_secrets(&format!("{place}: {}", self.message));
        self
    }

    /// Adds the way out.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(without_secrets(&hint.into()));
        self
    }

    /// What the user can do about it, possibly over several lines.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Why a question to a server has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The server was not reached: what it said before may hold still.
    Unreached(SourceError),
    /// The server says no.
    Refused(SourceError),
}

impl From<Unanswered> for SourceError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Unreached(error) | Unanswered::Refused(error) => error,
        }
    }
}

/// `text` without what the addresses in it hold of secrets: names and passwords (`https://name:password@host`) and queries (`?token=…`).
pub(crate) fn without_secrets(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        let end = after.find(|c: char| c.is_whitespace() || "\"'`<>()|".contains(c));
        let (address, later) = after.split_at(end.unwrap_or(after.len()));
        clean += before;
        clean += &without_secrets_in(address);
        rest = later;
    }
    clean + rest
}

/// The same of one address, from its host on.
fn without_secrets_in(address: &str) -> String {
    let end = address.find(['/', '?', '#']).unwrap_or(address.len());
    let (host, _) = address.split_at(end);
    // A slash that a password holds, against the rules, leaves a port that is none.
    let is_cut = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.bytes().all(|byte| byte.is_ascii_digit()));
    let at = match is_cut {
        true => address.rfind('@'),
        false => host.rfind('@'),
    };
    let (hidden, shown) = match at {
        Some(at) => ("***@", &address[at + 1..]),
        None => ("", address),
    };
    match shown.split_once('?') {
        Some((shown, query)) if !query.is_empty() => format!("{hidden}{shown}?***"),
        _ => format!("{hidden}{shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_their_secrets_and_other_words_as_they_are() {
        for (text, shown) in [
            ("https://me:pw@host/a/b", "https://***@host/a/b"),
            ("https://token@host:8080/a", "https://***@host:8080/a"),
            ("https://me:p@ss@host/a", "https://***@host/a"),
            ("http://me:a/b@host/c", "http://***@host/c"),
            (
                "at (https://me:pw@host), twice: ftp://x:y@z",
                "at (https://***@host), twice: ftp://***@z",
            ),
            (
                "https://host/a?token=s&b=c is gone",
                "https://host/a?*** is gone",
            ),
            ("https://host:80/a@b/c", "https://host:80/a@b/c"),
            ("http://[::1]:80/a", "http://[::1]:80/a"),
            ("is it https://host?", "is it https://host?"),
            (
                "hf:owner/name@main, me@host: a?b",
                "hf:owner/name@main, me@host: a?b",
            ),
            ("://", "://"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn an_error_keeps_no_secret_whichever_part_of_it_had_one() {
        let address = "https://me:pw@host/a?key=pw";
        let error = SourceError::new(format!("{address} is gone"));
        let error = error.within(address).with_hint(format!("see {address}"));
        assert!(!format!("{error} {error:?}").contains("pw"), "{error:?}");
    }
}
