//! The `model` stage: everything that needs the real base model.

use std::path::Path;
use std::process::Command;

use crate::counts::Counts;
use crate::step::Step;
use crate::test::{BENCHES, FIXTURES, benches, build, has_nextest, release_folder};

/// Where the stage's runs go.
const RUNS: &str = "target/model-stage";

/// Gets the base, then: its fixtures, the tests marked `ignore`, every benchmark once, the demo with one method, and every crate's examples.
///
/// # Errors
/// When a program cannot be started.
pub fn run() -> anyhow::Result<Counts> {
    let mut counts = build()?;
    if !counts.is_good() {
        return Ok(counts);
    }
    let (fetched, lines) =
        Step::program("base model", program("moe-cl", &["inspect"])).run_and_read()?;
    let Some(base) = value_after(&lines, "path").filter(|_| fetched.is_good()) else {
        counts += Counts::not_run(
            "model",
            "the base model cannot be had here; see above for the ways to get it",
        );
        return Ok(counts);
    };
    counts += fetched;
    counts += fixtures(&base)?;
    counts += ignored_tests()?;

    let mut once = benches(&BENCHES);
    once.arguments(&["--", "--test"]);
    counts += once.run()?;

    // What an earlier run finished would not be run again.
    if Path::new(RUNS).exists() {
        std::fs::remove_dir_all(RUNS)?;
    }
    let arguments = [
        "demo",
        "--methods",
        "moe_cl",
        "--out",
        &format!("{RUNS}/demo"),
    ];
    let (demo, lines) = Step::program("demo", program("moe-cl", &arguments)).run_and_read()?;
    counts += demo;
    let data = value_after(&lines, "data:").unwrap_or_default();
    counts += measurements(&base, &data)?;
    for example in examples()? {
        counts += Step::program(
            &format!("example {example}"),
            example_command(&example, &base, &data),
        )
        .run()?;
    }
    Ok(counts)
}

/// The measuring programs, on next to nothing.
fn measurements(base: &str, data: &str) -> anyhow::Result<Counts> {
    let step = ["--layers", "1", "--len", "8", "--rounds", "1"];
    let mut counts = Step::program("bench step", program("step", &step)).run()?;
    let out = format!("{RUNS}/continual");
    let mut continual = program("continual", &["--suite", "demo", "--orders", "1"]);
    continual.args(["--methods", "sequential", "--seeds", "0", "--base", base]);
    continual.args([
        "--data",
        data_root(data),
        "--out",
        &out,
        "--step-tasks",
        "1",
    ]);
    for setting in [
        "data.train_examples=8",
        "data.dev_examples=8",
        "data.test_examples=8",
    ] {
        continual.args(["--set", setting]);
    }
    counts += Step::program("bench continual", continual).run()?;
    counts += peers(base)?;
    Ok(counts)
}

/// PyTorch's step against ours, where an earlier `cargo xtask bench peers` has installed PyTorch: its download is too large for a test.
fn peers(base: &str) -> anyhow::Result<Counts> {
    if !Path::new("target/peers/installed").exists() {
        return Ok(Counts::not_run(
            "bench peers",
            "no PyTorch here; `cargo xtask bench peers` installs it (1 GB)",
        ));
    }
    let peers = program("peers", &["--rounds", "0", "--base", base]);
    Step::program("bench peers", peers).run()
}

/// The demo's data lies in a folder of its own below the root that experiments name.
fn data_root(data: &str) -> &str {
    data.strip_suffix("/hutto").unwrap_or(data)
}

fn fixtures(base: &str) -> anyhow::Result<Counts> {
    let folder = Path::new(FIXTURES).join("smollm2");
    if !folder.is_dir() {
        return Ok(Counts::not_run(
            "the base model's fixtures",
            &format!("there is no folder {}", folder.display()),
        ));
    }
    let command = program("conformance", &[&folder.display().to_string()]);
    let step = Step::program("base model against its fixtures", command);
    step.environment("MOE_CL_BASE", base).run()
}

fn ignored_tests() -> anyhow::Result<Counts> {
    let what = "tests on the base model";
    if has_nextest() {
        let mut step = Step::cargo(
            what,
            &[
                "nextest",
                "run",
                "--release",
                "--workspace",
                "--no-fail-fast",
            ],
        );
        step.arguments(&["--run-ignored", "only", "--no-tests", "pass"]);
        step.run()
    } else {
        let mut step = Step::cargo(
            what,
            &["test", "--release", "--workspace", "--no-fail-fast"],
        );
        step.arguments(&["--lib", "--bins", "--tests", "--", "--ignored"]);
        step.run()
    }
}

/// The rest of the first line that begins with `key`.
fn value_after(lines: &[String], key: &str) -> Option<String> {
    let rest = lines.iter().find_map(|line| line.strip_prefix(key))?;
    Some(rest.trim().to_string()).filter(|value| !value.is_empty())
}

/// Examples that want arguments get small ones; the others run as they are.
fn example_command(name: &str, base: &str, data: &str) -> Command {
    let example = format!("examples/{name}");
    match name {
        "generate" => program(&example, &[base, "What is the capital of France?"]),
        "learn" => {
            let root = format!("data.root={}", data_root(data));
            let settings = [
                &root,
                "data.train_examples=16",
                "data.test_examples=8",
                "training.epochs=1",
            ];
            let out = format!("{RUNS}/learn");
            let mut command = program(&example, &[base, "configs/sentiment.toml", &out]);
            command.args(settings);
            command
        }
        _ => program(&example, &[]),
    }
}

/// A program of the release build.
fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(release_folder().join(name));
    command.args(arguments);
    command
}

/// Names of all examples of all crates, sorted.
fn examples() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for package in std::fs::read_dir("crates")? {
        let Ok(files) = std::fs::read_dir(package?.path().join("examples")) else {
            continue;
        };
        for file in files {
            let path = file?.path();
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            names.extend(
                path.file_stem()
                    .filter(|_| is_source)
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_rest_of_its_line() {
        let lines = [
            "base   x".to_string(),
            "path     /a b/c.gguf".to_string(),
            "data: /d/hutto".to_string(),
        ];
        assert_eq!(value_after(&lines, "path"), Some("/a b/c.gguf".into()));
        assert_eq!(value_after(&lines, "data:"), Some("/d/hutto".into()));
        assert_eq!(value_after(&lines, "else"), None);
    }
}
