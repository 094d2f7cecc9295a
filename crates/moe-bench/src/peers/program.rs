//! A program that stays warm and does one timed step per request: ours and the peers' speak the same few lines.
//!
//! It says `{"ready": "what it is"}` when it is warm, answers `step` with `{"seconds": …}` and `rate` with `{"gflops": …}`,
//! and ends when its input does. What it cannot do it answers with `{"error": "…"}`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One line from a program.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is warm; what it is.
    Ready(String),
    /// Seconds that one step took.
    Seconds(f64),
    /// GFLOP/s of the frozen products of a step, each at its best.
    Gflops(f64),
    /// Why it cannot.
    Error(String),
    /// It ended without a word.
    #[default]
    #[serde(skip)]
    Nothing,
}

/// A running program; ended when dropped.
pub struct Program {
    name: String,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What it said of itself.
    pub ready: String,
}

impl Program {
    /// Starts it and waits until it is warm. Its standard error is ours.
    ///
    /// # Errors
    /// When it cannot be started or does not get ready.
    pub fn start(name: &str, mut command: Command) -> anyhow::Result<Self> {
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes
            .spawn()
            .with_context(|| format!("cannot start {name} ({command:?})"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, answers) = pipes.context("no pipes to the program")?;
        let mut program = Self {
            name: name.into(),
            child,
            requests,
            answers: BufReader::new(answers),
            ready: String::new(),
        };
        match program.answer()? {
            Answer::Ready(what) => program.ready = what,
            other => return Err(program.refuse(&other)),
        }
        Ok(program)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it do a step. Returns its seconds.
    ///
    /// # Errors
    /// When it fails or answers something else.
    pub fn step(&mut self) -> anyhow::Result<f64> {
        match self.ask("step")? {
            Answer::Seconds(seconds) if seconds > 0.0 => Ok(seconds),
            other => Err(self.refuse(&other)),
        }
    }

    /// Has it measure its products. Returns their rate in GFLOP/s.
    ///
    /// # Errors
    /// When it fails or answers something else.
    pub fn rate(&mut self) -> anyhow::Result<f64> {
        match self.ask("rate")? {
            Answer::Gflops(gflops) if gflops > 0.0 => Ok(gflops),
            other => Err(self.refuse(&other)),
        }
    }

    fn ask(&mut self, request: &str) -> anyhow::Result<Answer> {
        // A program that has ended is told by its missing answer.
        let _ = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        match read.with_context(|| format!("{}: no answer", self.name))? {
            0 => Ok(Answer::Nothing),
            _ => serde_json::from_str(&line)
                .with_context(|| format!("{}: not an answer: {}", self.name, line.trim())),
        }
    }

    fn refuse(&mut self, answer: &Answer) -> anyhow::Error {
        let name = &self.name;
        match answer {
            Answer::Error(why) => anyhow::anyhow!("{name}: {why}"),
            Answer::Nothing => match self.child.wait() {
                Ok(status) => {
                    anyhow::anyhow!("{name} ended with {status}; see what it printed above")
                }
                Err(error) => anyhow::anyhow!("{name}: {error}"),
            },
            other => anyhow::anyhow!("{name}: out of turn: {other:?}"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other end: says that it is ready, then answers requests until there are no more.
///
/// # Errors
/// When the pipes break.
pub fn answer(
    ready: String,
    mut step: impl FnMut() -> f64,
    mut rate: impl FnMut() -> f64,
    requests: impl BufRead,
    mut answers: impl Write,
) -> anyhow::Result<()> {
    let mut say = |answer: Answer| -> anyhow::Result<()> {
        writeln!(answers, "{}", serde_json::to_string(&answer)?)?;
        Ok(answers.flush()?)
    };
    say(Answer::Ready(ready))?;
    for request in requests.lines() {
        say(match request?.trim() {
            "step" => Answer::Seconds(step()),
            "rate" => Answer::Gflops(rate()),
            other => Answer::Error(format!("unknown request {other:?}")),
        })?;
    }
    Ok(())
}

#[cfg(all(test, unix))]
pub mod tests {
    use super::*;

    /// A program that is a few lines of shell.
    pub fn fake(script: &str) -> anyhow::Result<Program> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start("fake", command)
    }

    /// A fake that is ready and always takes `seconds`.
    pub fn steady(seconds: f64) -> Program {
        fake(&format!(
            r#"echo '{{"ready": "fake"}}'
            while read request; do case $request in
                step) echo '{{"seconds": {seconds}}}';; rate) echo '{{"gflops": 100}}';; esac; done"#
        ))
        .expect("sh runs")
    }

    #[test]
    fn a_program_is_asked_line_by_line() {
        let mut program = steady(0.5);
        assert_eq!(program.ready, "fake");
        assert_eq!(program.step().expect("a step"), 0.5);
        assert_eq!(program.rate().expect("a rate"), 100.0);
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let error = |script: &str| fake(script).err().expect("no success").to_string();
        assert!(error("exit 3").contains("fake ended with exit status: 3"));
        assert!(error(r#"echo '{"error": "no memory"}'"#).contains("no memory"));
        assert!(error("echo hello").contains("not an answer: hello"));
        assert!(error(r#"echo '{"seconds": 1}'"#).contains("out of turn"));
        let mut ends = fake(r#"echo '{"ready": "x"}'; read request; exit 4"#).expect("it is ready");
        assert!(ends.step().is_err());
    }

    #[test]
    fn both_ends_speak_the_same_lines() {
        let mut said = Vec::new();
        let requests = "step\nrate\nsing\n".as_bytes();
        answer("me".into(), || 2.0, || 3.0, requests, &mut said).expect("memory does not fail");
        let said = String::from_utf8(said).expect("text");
        let answers: Vec<Answer> = said
            .lines()
            .map(|line| serde_json::from_str(line).expect("an answer"))
            .collect();
        assert_eq!(
            answers[..3],
            [
                Answer::Ready("me".into()),
                Answer::Seconds(2.0),
                Answer::Gflops(3.0)
            ]
        );
        assert!(matches!(answers[3], Answer::Error(_)));
    }
}
