//! What ends a command from outside: the first SIGINT or SIGTERM asks a run to stop where it can go on, the second ends the process.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::terminal::tell;

/// Whether a signal has come.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    came: Arc<AtomicBool>,
    /// Number of the last one.
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Listens from now on: one signal is noted, another one ends the process with the exit status 128 + its number.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> io::Result<Self> {
        let signals = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: a first signal finds none that came before it.
            let came = || Arc::clone(&signals.came);
            flag::register_conditional_shutdown(signal, 128 + signal, came())?;
            flag::register_usize(signal, Arc::clone(&signals.number), signal as usize)?;
            flag::register(signal, came())?;
        }
        Ok(signals)
    }

    /// Whether one has come.
    pub fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }

    /// Says on standard error that a run stopped after `step`, and that `again` goes on with it. The exit status: 128 + the signal's
    /// number, or 0 where the run was stopped by other means.
    pub fn stopped(&self, step: usize, again: &str) -> ExitCode {
        let said = format!(
            "stopped after step {step}: what was learnt so far is on disk\n  hint: go on with `{again}`"
        );
        // Nobody may be there to read it.
        tell!("{said}");
        match (self.came(), self.number.load(Ordering::Relaxed)) {
            (true, number) => ExitCode::from(128 + u8::try_from(number).unwrap_or(0)),
            (false, _) => ExitCode::SUCCESS,
        }
    }
}

/// The command line of this process, with `flag` where it is not there.
pub fn this_command_with(flag: Option<&str>) -> String {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let missing = flag.filter(|flag| !words.iter().any(|word| word == flag));
    words.extend(missing.map(str::to_owned));
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("moe-cl {}", words.join(" "))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        assert_eq!(quoted("training.epochs=1"), "training.epochs=1");
        assert_eq!(
            quoted("method={name='ewc'}"),
            r"'method={name='\''ewc'\''}'"
        );
        assert_eq!(quoted(""), "''");
    }
}
