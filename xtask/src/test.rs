//! The test stages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;

use crate::counts::Counts;
use crate::step::Step;

/// Where the fixtures lie: beside the checkout, as people who work on the project have them.
pub const FIXTURES: &str = "../shared/fixtures";

/// A part of the test suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Formatting, clippy and documentation without a warning
    Lint,
    /// Unit, integration and documentation tests
    Unit,
    /// The project's code against the stored numbers of other programs
    Conformance,
    /// What needs the real base model: its fixtures, its tests, every crate's examples
    Model,
    /// Tests on a (software) Vulkan device
    Gpu,
}

/// Runs the stages named, all when none is, and prints a summary. True when nothing failed.
///
/// # Errors
/// When a program cannot be started.
pub fn run(stages: &[Stage]) -> anyhow::Result<bool> {
    let stages = if stages.is_empty() {
        Stage::value_variants()
    } else {
        stages
    };
    let mut results = Vec::new();
    for &stage in stages {
        println!("\n=== stage {}", name(stage));
        let start = Instant::now();
        let counts = match stage {
            Stage::Lint => lint()?,
            Stage::Unit => unit()?,
            Stage::Conformance => conformance_of(Path::new(FIXTURES))?,
            Stage::Model => model()?,
            Stage::Gpu => gpu()?,
        };
        results.push((stage, counts, start.elapsed().as_secs()));
    }
    println!(
        "\n{:<12} {:>7} {:>7} {:>8} {:>8}",
        "stage", "passed", "failed", "skipped", "seconds"
    );
    let mut total = Counts::default();
    for (stage, counts, seconds) in results {
        let Counts {
            passed,
            failed,
            skipped,
        } = counts;
        println!(
            "{:<12} {passed:>7} {failed:>7} {skipped:>8} {seconds:>8}",
            name(stage)
        );
        total += counts;
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    Ok(total.is_good())
}

fn name(stage: Stage) -> String {
    stage
        .to_possible_value()
        .map(|value| value.get_name().to_string())
        .unwrap_or_default()
}

fn lint() -> anyhow::Result<Counts> {
    let mut counts = Step::cargo("formatting", &["fmt", "--all", "--check"]).run()?;
    let clippy = [
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ];
    counts += Step::cargo("clippy", &clippy).run()?;
    let doc = Step::cargo(
        "documentation",
        &[
            "doc",
            "--release",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ],
    );
    counts += doc.environment("RUSTDOCFLAGS", "--deny warnings").run()?;
    Ok(counts)
}

fn unit() -> anyhow::Result<Counts> {
    let mut counts = if has_nextest() {
        Step::cargo(
            "tests",
            &[
                "nextest",
                "run",
                "--release",
                "--workspace",
                "--no-fail-fast",
            ],
        )
        .run()?
    } else {
        Step::cargo(
            "tests",
            &[
                "test",
                "--release",
                "--workspace",
                "--no-fail-fast",
                "--lib",
                "--bins",
                "--tests",
            ],
        )
        .run()?
    };
    counts += Step::cargo(
        "documentation tests",
        &[
            "test",
            "--release",
            "--workspace",
            "--no-fail-fast",
            "--doc",
        ],
    )
    .run()?;
    Ok(counts)
}

fn has_nextest() -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo)
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Runs the conformance program on a folder of fixtures; a folder that is not there is skipped by name.
///
/// # Errors
/// When a program cannot be started.
pub fn conformance_of(folder: &Path) -> anyhow::Result<Counts> {
    if !folder.is_dir() {
        println!(
            "SKIP conformance: there is no folder {}; name one: cargo xtask conformance DIR",
            folder.display()
        );
        return Ok(Counts {
            skipped: 1,
            ..Counts::default()
        });
    }
    // The whole workspace, so that the same builds of the libraries serve every stage.
    let built = Step::cargo("build", &["build", "--release", "--workspace", "--bins"]).run()?;
    if !built.is_good() {
        return Ok(built);
    }
    let mut command = Command::new(release_folder().join("conformance"));
    command.arg(folder);
    Step::program("conformance", command).run()
}

fn release_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from("target"), PathBuf::from)
        .join("release")
}

/// Everything that needs the real base model: its fixtures, the tests marked `ignore`, every example, and a run of the demo cut short.
fn model() -> anyhow::Result<Counts> {
    let mut counts = Step::cargo(
        "build",
        &["build", "--release", "--workspace", "--bins", "--examples"],
    )
    .run()?;
    if !counts.is_good() {
        return Ok(counts);
    }
    let fetch = program("moe-cl", &["inspect", "smollm2"]);
    let fetched = Step::program("base model", fetch).run()?;
    if !fetched.is_good() {
        println!(
            "SKIP model: the base model cannot be had here (see above for the ways to get it)"
        );
        return Ok(Counts {
            skipped: 1,
            ..counts
        });
    }
    counts += fetched;
    let fixtures = Path::new(FIXTURES).join("smollm2");
    if fixtures.is_dir() {
        let mut command = Command::new(release_folder().join("conformance"));
        command.arg(&fixtures);
        counts += Step::program("base model against its fixtures", command).run()?;
    } else {
        println!(
            "SKIP the base model's fixtures: there is no folder {}",
            fixtures.display()
        );
        counts.skipped += 1;
    }
    counts += if has_nextest() {
        let arguments = [
            "nextest",
            "run",
            "--release",
            "--workspace",
            "--no-fail-fast",
            "--run-ignored",
            "only",
            "--no-tests",
            "pass",
        ];
        Step::cargo("tests on the base model", &arguments).run()?
    } else {
        let arguments = [
            "test",
            "--release",
            "--workspace",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
            "--",
            "--ignored",
        ];
        Step::cargo("tests on the base model", &arguments).run()?
    };
    for example in examples()? {
        counts += Step::program(
            &format!("example {example}"),
            program(&format!("examples/{example}"), &[]),
        )
        .run()?;
    }
    Ok(counts)
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

/// Small tests on the Vulkan device, in a build of their own: it has another set of features, so nothing could be shared,
/// and light optimisation builds it in a fraction of the time.
fn gpu() -> anyhow::Result<Counts> {
    if !has_vulkan() {
        println!(
            "SKIP gpu: no Vulkan driver found; on Debian `apt-get install mesa-vulkan-drivers` brings a software one"
        );
        return Ok(Counts {
            skipped: 1,
            ..Counts::default()
        });
    }
    let profile = [
        r#"profile.gpu.inherits="release""#,
        "profile.gpu.opt-level=1",
        "profile.gpu.debug=false",
    ];
    let mut step = Step::cargo(
        "tests on Vulkan",
        &[
            "test",
            "--profile",
            "gpu",
            "--package",
            "moe-bench",
            "--features",
            "wgpu",
            "--test",
            "gpu",
        ],
    );
    for setting in profile {
        step.arguments(&["--config", setting]);
    }
    step.run()
}

/// Whether a driver is registered with the Vulkan loader.
fn has_vulkan() -> bool {
    if std::env::var_os("VK_DRIVER_FILES").is_some()
        || std::env::var_os("VK_ICD_FILENAMES").is_some()
        || !cfg!(target_os = "linux")
    {
        return true;
    }
    let folders = [
        "/usr/share/vulkan/icd.d",
        "/usr/local/share/vulkan/icd.d",
        "/etc/vulkan/icd.d",
    ];
    folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .any(|mut drivers| drivers.next().is_some())
}
