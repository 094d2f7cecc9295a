//! Reads a hostile file in a child process, so that a crash, a hang or a huge allocation is seen and named instead of ending the run.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// Longest time that reading one small file may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Address space that a child may add to what it starts with, on top of a few times the size of what it reads.
const ALLOWANCE_KIB: u64 = 512 << 10;
/// Hard limit of a child's address space, where the shell can set one.
const ADDRESS_SPACE_KIB: u64 = 16 << 20;

/// What a child is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A GGUF file: metadata and every tensor.
    Gguf,
    /// A safetensors file: every tensor.
    Safetensors,
    /// A model folder: configuration and every weight.
    Model,
    /// A file of records; the known labels follow.
    Records,
}

const SUBJECTS: [(&str, Subject); 4] = [
    ("gguf", Subject::Gguf),
    ("safetensors", Subject::Safetensors),
    ("model", Subject::Model),
    ("records", Subject::Records),
];

impl Subject {
    fn name(self) -> &'static str {
        SUBJECTS
            .iter()
            .find(|(_, subject)| *subject == self)
            .map_or("", |(name, _)| name)
    }
}

/// What the project's reader made of a file.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It was read; whatever the runner found wrong with what came out of it.
    Loaded {
        /// Number of tensors or records.
        items: usize,
        /// What differs from an independent reading of the same file.
        differences: Vec<String>,
    },
    /// It was refused with this error.
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct Report {
    outcome: Outcome,
    /// Address space added while reading, where the platform tells.
    grown_kib: Option<u64>,
}

/// Reads `path` in a child process. `Err` names a crash, a hang or a huge allocation.
///
/// # Errors
/// The outer error is the runner's own: the child could not be started.
pub fn ask(
    subject: Subject,
    path: &Path,
    arguments: &[String],
) -> anyhow::Result<Result<Outcome, String>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = if cfg!(unix) {
        let mut shell = Command::new("sh");
        shell
            .args([
                "-c",
                &format!("ulimit -v {ADDRESS_SPACE_KIB} 2>/dev/null; exec \"$@\""),
                "sh",
            ])
            .arg(program);
        shell
    } else {
        Command::new(program)
    };
    command
        .args(["--probe", subject.name()])
        .arg(path)
        .args(arguments);
    // One arena and two workers: what the child adds is then what the reader asked for.
    command
        .env("MALLOC_ARENA_MAX", "1")
        .env("RAYON_NUM_THREADS", "2")
        .env("RUST_BACKTRACE", "0");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start a child process")?;
    let mut pipes = child
        .stdout
        .take()
        .zip(child.stderr.take())
        .context("the child has no output")?;
    let collect = |pipe: &mut dyn Read| {
        let mut text = Vec::new();
        // A broken pipe leaves what came before it, which is all there is to say.
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    let errors = std::thread::spawn(move || collect(&mut pipes.1));
    let report = std::thread::spawn(move || collect(&mut pipes.0));
    let status = wait(&mut child)?;
    let (report, errors) = (
        report.join().unwrap_or_default(),
        errors.join().unwrap_or_default(),
    );
    let Some(status) = status else {
        return Ok(Err(format!("did not end within {} s", PATIENCE.as_secs())));
    };
    let Some(line) = report.lines().last().filter(|_| status.success()) else {
        return Ok(Err(format!("crashed ({status}): {}", errors.trim())));
    };
    let report: Report =
        serde_json::from_str(line).with_context(|| format!("the child printed {line:?}"))?;
    let allowed = ALLOWANCE_KIB + 8 * size_kib(path);
    Ok(match report.grown_kib {
        Some(grown) if grown > allowed => Err(format!(
            "asked for {} MiB to read {} KiB",
            grown >> 10,
            size_kib(path)
        )),
        _ => Ok(report.outcome),
    })
}

/// Waits for a child; none when it had to be stopped.
fn wait(child: &mut Child) -> anyhow::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// The child's side: reads the file named on the command line and prints a report.
///
/// # Errors
/// When the arguments are not those of a probe.
pub fn answer(arguments: &[String]) -> anyhow::Result<()> {
    let [subject, path, rest @ ..] = arguments else {
        bail!("--probe wants a subject and a path")
    };
    let subject = SUBJECTS
        .iter()
        .find(|(name, _)| name == subject)
        .map(|(_, subject)| *subject);
    let path = Path::new(path);
    let before = peak_kib();
    let outcome = match subject.context("unknown subject")? {
        Subject::Gguf => super::gguf::read_hostile(path),
        Subject::Safetensors => super::bad_safetensors::read_hostile(path),
        Subject::Model => super::bad_config::read_hostile(path),
        Subject::Records => super::bad_jsonl::read_hostile(path, rest),
    };
    let grown_kib = before
        .zip(peak_kib())
        .map(|(before, after)| after.saturating_sub(before));
    println!("{}", serde_json::to_string(&Report { outcome, grown_kib })?);
    Ok(())
}

/// Largest address space of this process so far: an allocation shows here even when it is never touched.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmPeak:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Size of a file, or of the files in a folder.
fn size_kib(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let inside: u64 = entries
        .filter_map(|entry| std::fs::metadata(entry.path()).ok())
        .map(|data| data.len())
        .sum();
    let own = std::fs::metadata(path).map_or(0, |data| data.len());
    own.max(inside) >> 10
}
