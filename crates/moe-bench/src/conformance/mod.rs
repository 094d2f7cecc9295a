//! Runs the project's code on every fixture below a folder and compares with the numbers stored there.
//!
//! A fixture is a folder with a `case.json` (what it is, settings, tolerances, notes) and, for numeric cases, `tensors.safetensors`.
//! Everything is read from these files: no shape, seed, size or case name is known here. One file per group of fixtures.

mod analytic_router;
mod bad_config;
mod bad_jsonl;
mod bad_safetensors;
mod bad_sharded;
mod base_gradients;
mod baselines;
pub(crate) mod case;
mod check;
mod device;
mod expectation;
mod gguf;
mod hostile;
mod llama;
mod metrics;
pub(crate) mod moe_cl;
mod moe_llama;
mod peft;
mod probe;
mod routers;
mod smollm2;
pub(crate) mod tensors;
mod train_utils;

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context;

use case::Case;
use check::Verdict;
pub use probe::answer as answer_probe;

/// Exit code of a run that compared nothing, because there are no fixtures or every case was skipped: neither a success nor a failure.
const NOT_RUN: u8 = 3;

/// Runs every case below `root`, prints a line for each and `N passed, N failed, N skipped` at the end.
///
/// Fails when a case fails, or when there is no case at all. Where there is no such folder, or every case was skipped, nothing has
/// been held against anything: a line says `NOT RUN: ` and why, and the exit code is 3.
pub fn run(root: &Path) -> ExitCode {
    if !root.is_dir() {
        println!("NOT RUN: there is no folder {}", root.display());
        return ExitCode::from(NOT_RUN);
    }
    let mut folders = Vec::new();
    if let Err(error) = find_cases(root, &mut folders) {
        eprintln!("error: {error:#}");
        return ExitCode::from(2);
    }
    folders.sort();
    println!(
        "conformance below {}: worst = largest |got - want| / (atol + rtol |want|), 1 is the limit",
        root.display()
    );
    remember_panics();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for folder in &folders {
        let (name, verdict) = judge(root, folder);
        match verdict {
            Verdict::Pass(line) => {
                passed += 1;
                println!("PASS {name} {line}");
            }
            Verdict::Fail(line) => {
                failed += 1;
                println!("FAIL {name} {line}");
            }
            Verdict::Skip(reason) => {
                skipped += 1;
                println!("SKIP {name} {reason}");
            }
        }
    }
    if folders.is_empty() {
        println!("FAIL {} holds no case.json", root.display());
        failed = 1;
    }
    if passed + failed == 0 {
        println!(
            "NOT RUN: all {skipped} cases below {} were skipped, and nothing was compared",
            root.display()
        );
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    match (passed, failed) {
        (0, 0) => ExitCode::from(NOT_RUN),
        (_, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Every folder at or below `folder` that has a case.json.
fn find_cases(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if folder.join("case.json").is_file() {
        found.push(folder.to_path_buf());
    }
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_cases(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// Name and verdict of the case in `folder`; an error or a panic inside it is a failure.
fn judge(root: &Path, folder: &Path) -> (String, Verdict) {
    let fallback = folder
        .strip_prefix(root)
        .unwrap_or(folder)
        .display()
        .to_string();
    let case = match Case::read(folder) {
        Ok(case) => case,
        Err(error) => return (fallback, Verdict::Fail(one_line(&format!("{error:#}")))),
    };
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| dispatch(&case)));
    let verdict = match outcome {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => Verdict::Fail(one_line(&format!("{error:#}"))),
        Err(_) => Verdict::Fail(one_line(&format!("panicked: {}", last_panic()))),
    };
    (case.name, verdict)
}

fn dispatch(case: &Case) -> anyhow::Result<Verdict> {
    match case.group() {
        "analytic_router" => analytic_router::run(case),
        "bad_config" => bad_config::run(case),
        "bad_jsonl" => bad_jsonl::run(case),
        "bad_safetensors" => bad_safetensors::run(case),
        "bad_sharded" => bad_sharded::run(case),
        "baselines" => baselines::run(case),
        "gguf" => gguf::run(case),
        "llama" => llama::run(case),
        "metrics" => metrics::run(case),
        "moe_cl" => moe_cl::run(case),
        "moe_llama" => moe_llama::run(case),
        "peft" => peft::run(case),
        "routers" => routers::run(case),
        "smollm2" => smollm2::run(case),
        "train_utils" => train_utils::run(case),
        group => Ok(Verdict::Skip(format!("unknown group `{group}`"))),
    }
}

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps a panic's message and place for the line of the case, instead of printing it in the middle of the list.
fn remember_panics() {
    panic::set_hook(Box::new(|info| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = info.to_string();
        }
    }));
}

fn last_panic() -> String {
    LAST_PANIC
        .lock()
        .map(|last| last.clone())
        .unwrap_or_default()
}

/// A message on one line, at most 400 characters.
fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(400) {
        line.truncate(end);
        line.push('…');
    }
    line
}
