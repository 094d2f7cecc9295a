//! One command of a stage: shown while it runs, and read for its test summaries.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::Context;

use crate::counts::Counts;

/// How a program ends that could compare nothing, after a line [`NOTHING`]. It has neither passed nor failed.
pub const NOT_RUN: u8 = 3;
/// What that line begins with; the reason follows.
const NOTHING: &str = "NOT RUN: ";

/// A command to run.
pub struct Step {
    what: String,
    command: Command,
}

impl Step {
    /// A cargo command.
    pub fn cargo(what: &str, arguments: &[&str]) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut step = Self::program(what, Command::new(cargo));
        step.arguments(arguments);
        step
    }

    /// Any other program.
    pub fn program(what: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        // Summaries are read from the output, so it has to be plain.
        command.env("CARGO_TERM_COLOR", "never");
        // What cargo sets for xtask itself is not meant for the commands that it starts.
        command.env_remove("CARGO_MANIFEST_DIR");
        Self {
            what: what.into(),
            command,
        }
    }

    /// Adds arguments.
    pub fn arguments(&mut self, arguments: &[&str]) {
        self.command.args(arguments);
    }

    /// Sets an environment variable.
    pub fn environment(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// What it is for.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Runs it, showing its output line by line. A command without a test summary counts as one test.
    ///
    /// # Errors
    /// When it cannot be started or waited for.
    pub fn run(self) -> anyhow::Result<Counts> {
        Ok(self.run_and_read()?.0)
    }

    /// As [`Self::run`], and returns the lines of its standard output.
    ///
    /// # Errors
    /// When it cannot be started or waited for.
    pub fn run_and_read(mut self) -> anyhow::Result<(Counts, Vec<String>)> {
        println!("\n--- {}: {}", self.what, self.line());
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("cannot start {}", self.line()))?;
        let (output, errors) = child
            .stdout
            .take()
            .zip(child.stderr.take())
            .context("no output to read")?;
        let errors = thread::spawn(move || follow(errors));
        let lines = follow(output);
        let errors = errors.join().unwrap_or_default();
        let status = child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.line()))?;
        let mut counts = Counts::default();
        let found: Vec<Counts> = lines
            .iter()
            .chain(&errors)
            .filter_map(|line| Counts::read(line))
            .collect();
        let is_empty = found.is_empty();
        found.into_iter().for_each(|summary| counts += summary);
        let nothing = lines.iter().find_map(|line| line.strip_prefix(NOTHING));
        if let (Some(why), Some(NOT_RUN)) = (nothing, code(status)) {
            counts += Counts::not_run(&self.what, why);
        } else if !status.success() && counts.failed == 0 {
            counts.failed += 1;
            println!("--- {} ended with {status}", self.what);
        } else if is_empty {
            counts.passed += 1;
        }
        Ok((counts, lines))
    }

    fn line(&self) -> String {
        let program = self.command.get_program().to_string_lossy();
        let program = program.rsplit('/').next().unwrap_or(&program);
        let arguments = self
            .command
            .get_args()
            .map(|argument| format!(" {}", argument.to_string_lossy()));
        format!("{program}{}", arguments.collect::<String>())
    }
}

/// The exit code of a program that ended by itself.
fn code(status: ExitStatus) -> Option<u8> {
    status.code().and_then(|code| code.try_into().ok())
}

/// Prints what comes through a pipe, line by line, and returns the lines.
fn follow(pipe: impl Read) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(pipe).split(b'\n') {
        // A pipe that breaks ends the output; the exit status tells the rest.
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line).into_owned();
        println!("{line}");
        lines.push(line);
    }
    lines
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Counts {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Step::program("thing", command).run().expect("a shell")
    }

    #[test]
    fn a_program_that_compared_nothing_has_not_passed() {
        let counts = shell("echo 'NOT RUN: no base'; echo '0 passed, 0 failed, 2 skipped'; exit 3");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (0, 0, 2));
        assert_eq!(counts.not_run, ["thing: no base"]);
    }

    #[test]
    fn a_program_that_ends_badly_has_failed_whatever_it_says() {
        for script in [
            "exit 3",
            "echo 'NOT RUN: a'; exit 1",
            "echo '3 passed, 0 failed, 0 skipped'; exit 99",
        ] {
            assert_eq!(shell(script).failed, 1, "{script}");
        }
        assert_eq!(shell("echo 'NOT RUN: a'").passed, 1);
    }
}
