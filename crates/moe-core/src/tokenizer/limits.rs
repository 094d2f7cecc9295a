//! What a tokenizer of a stranger may cost. The largest that are in use (a vocabulary of 262,144, 580,000 merges, 34 MB) stay well below.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::bounded::{self, Failure};
use crate::error::{Error, Result};

/// Longest `tokenizer.json`, in bytes.
pub(super) const MAX_FILE: u64 = 64 << 20;
/// Most values in a `tokenizer.json` (what commas separate): each takes some hundred bytes once it is read.
pub(super) const MAX_VALUES: usize = 4 << 20;
/// Largest id of a token: the library counts through all ids up to it.
pub(super) const MAX_ID: u32 = (1 << 22) - 1;
/// Longest token of a GGUF file, in bytes.
pub(super) const MAX_TOKEN: usize = 4096;
/// Bytes of all tokens, and of all merges, of a GGUF file.
pub(super) const MAX_TEXT: usize = 64 << 20;
/// Most merges of a GGUF file.
pub(super) const MAX_MERGES: usize = 2 << 20;
/// Most bytes that are compared to find the merges of a vocabulary that has scores: the sum of the squares of its tokens' lengths.
pub(super) const MAX_SPLITS: usize = 1 << 30;
/// Longest time that the library may take to build a tokenizer.
pub(super) const MAX_BUILD: Duration = Duration::from_secs(60);
/// Stack on which it builds.
const STACK: usize = 16 << 20;

/// Refuses a `tokenizer.json` that is too long, or has too many values.
pub(super) fn check_json(json: &[u8]) -> Result<()> {
    if json.len() as u64 > MAX_FILE {
        let len = json.len();
        return Err(refused(format!(
            "{len} bytes; expected at most {MAX_FILE}: not a tokenizer of a model"
        )));
    }
    // A comma within a text is none, but a bound from above is enough for files that are small.
    let commas = json.iter().filter(|byte| **byte == b',').count();
    match commas > MAX_VALUES {
        true => Err(refused(format!(
            "{commas} values; expected at most {MAX_VALUES}: not a tokenizer of a model"
        ))),
        false => Ok(()),
    }
}

/// Runs the library's `work`, whose panics and endless loops are errors here. A thread that does not end is left behind.
pub(super) fn within_time<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    bounded::run(STACK, MAX_BUILD, work).unwrap_or_else(|failure| {
        Err(match failure {
            Failure::Panic => panicked(what),
            Failure::Thread(error) => refused(format!("no thread to {what}: {error}")),
            Failure::Time => refused(format!(
                "the library needs more than {} s to {what}: the file is no tokenizer of a model",
                MAX_BUILD.as_secs()
            )),
        })
    })
}

/// Runs the library's `work`, whose panic is an error here.
pub(super) fn guarded<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked(what)))
}

fn panicked(what: &str) -> Error {
    refused(format!(
        "the library fails to {what}: the tokenizer's file is damaged, or of a kind that is not supported"
    ))
}

fn refused(message: String) -> Error {
    Error::Tokenizer(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_library_is_an_error() {
        for result in [
            within_time::<()>("build it", || panic!("expected by a test")),
            guarded::<()>("encode", || panic!("expected by a test")),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("the library fails to"), "{message}");
        }
    }

    #[test]
    fn too_many_values_are_refused_before_they_are_read() {
        let json = [b"[0", ",0".repeat(MAX_VALUES + 1).as_bytes(), b"]"].concat();
        let message = check_json(&json).unwrap_err().to_string();
        assert!(message.contains("values; expected at most"), "{message}");
    }
}
