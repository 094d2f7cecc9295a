//! The test stages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;

use crate::counts::Counts;
use crate::step::Step;
use crate::{alone, cuda, deny, gpu, guards, memcheck, model, size};

/// Where the fixtures lie: beside the checkout, as people who work on the project have them.
pub const FIXTURES: &str = "../shared/fixtures";

/// The benchmarks.
pub const BENCHES: [&str; 3] = ["model_forward", "moe_layer", "training_step"];

/// The step that runs these benchmarks. The whole workspace is named so that nothing is built with other features than the tests.
pub fn benches(names: &[&str]) -> Step {
    let mut step = Step::cargo("benchmarks", &["bench", "--workspace"]);
    for name in names {
        step.arguments(&["--bench", name]);
    }
    step
}

/// Programs that measure, with arguments of their own.
pub const PROGRAMS: [&str; 8] = [
    "balance",
    "continual",
    "decode",
    "step",
    "scale",
    "peers",
    "grow",
    "moe",
];

/// Builds and runs one of [`PROGRAMS`] with these arguments.
///
/// # Errors
/// When a program cannot be started.
pub fn measure(name: &str, arguments: &[String]) -> anyhow::Result<Counts> {
    let built = build()?;
    if !built.is_good() {
        return Ok(built);
    }
    // `scale` is a sweep of the program `step`.
    let (program, first) = match name {
        "scale" => ("step", Some("--scale")),
        name => (name, None),
    };
    let mut command = Command::new(release_folder().join(program));
    command.args(first).args(arguments);
    Step::program(name, command).run()
}

/// A part of the test suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Formatting, clippy and documentation without a warning; how many crates the command takes
    Lint,
    /// Licences, sources and advisories of the dependencies, by cargo-deny where that is installed
    Deny,
    /// Unit, integration and documentation tests
    Unit,
    /// Each library crate without the others' features, its tests and its README's example from outside the workspace
    Alone,
    /// Instruction counts of the main kernels against those on record
    Guards,
    /// The project's code against the stored numbers of other programs
    Conformance,
    /// Small cases met by users of other tools, against the program
    Field,
    /// Runs that are killed, whose disk is full, whose bits are flipped, against runs that are left in peace
    Crash,
    /// What needs the real base model: its fixtures, its tests, every crate's examples
    Model,
    /// Tests on a (software) Vulkan device
    Gpu,
    /// The program with the CUDA back end type-checks; no default stage, since it compiles that back end anew
    Cuda,
    /// The kernels' tests under valgrind; no default stage, since it compiles them anew and takes minutes
    Memcheck,
}

/// What runs when no stage is named.
const DEFAULT: [Stage; 10] = [
    Stage::Lint,
    Stage::Deny,
    Stage::Unit,
    Stage::Alone,
    Stage::Guards,
    Stage::Conformance,
    Stage::Field,
    Stage::Crash,
    Stage::Model,
    Stage::Gpu,
];

/// Runs the stages named, [`DEFAULT`] when none is, and prints a summary. True when nothing failed.
///
/// # Errors
/// When a program cannot be started.
pub fn run(stages: &[Stage]) -> anyhow::Result<bool> {
    let stages = if stages.is_empty() { &DEFAULT } else { stages };
    let mut results = Vec::new();
    for &stage in stages {
        println!("\n=== stage {}", name(stage));
        let start = Instant::now();
        let counts = match stage {
            Stage::Lint => lint()?,
            Stage::Deny => deny::run()?,
            Stage::Unit => unit()?,
            Stage::Alone => alone::run()?,
            Stage::Guards => guards::run(false)?,
            Stage::Conformance => conformance_of(Path::new(FIXTURES))?,
            Stage::Field => field()?,
            Stage::Crash => measure("crash", &CRASH_SHARE.map(str::to_owned))?,
            Stage::Model => model::run()?,
            Stage::Gpu => gpu::run()?,
            Stage::Cuda => cuda::run()?,
            Stage::Memcheck => memcheck::run()?,
        };
        results.push((stage, counts, start.elapsed().as_secs()));
    }
    println!(
        "\n{:<12} {:>7} {:>7} {:>8} {:>8} {:>8}",
        "stage", "passed", "failed", "skipped", "not run", "seconds"
    );
    let mut total = Counts::default();
    for (stage, counts, seconds) in results {
        println!(
            "{:<12} {:>7} {:>7} {:>8} {:>8} {seconds:>8}",
            name(stage),
            counts.passed,
            counts.failed,
            counts.skipped,
            counts.not_run.len()
        );
        total += counts;
    }
    println!();
    for part in &total.not_run {
        println!("NOT RUN {part}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
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
            // Its doc comments are help texts, and its binary has the name of a library.
            "--exclude",
            "moe-cli",
            "--no-deps",
            "--document-private-items",
        ],
    );
    counts += doc.environment("RUSTDOCFLAGS", "--deny warnings").run()?;
    counts += size::run()?;
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

/// Whether cargo-nextest is installed.
pub fn has_nextest() -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo)
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Runs the conformance program on a folder of fixtures. One that is not there is not run, and said to be.
///
/// # Errors
/// When a program cannot be started.
pub fn conformance_of(folder: &Path) -> anyhow::Result<Counts> {
    if !folder.is_dir() {
        let why = format!(
            "there is no folder {}; name one: cargo xtask conformance DIR",
            folder.display()
        );
        return Ok(Counts::not_run("conformance", &why));
    }
    let built = build()?;
    if !built.is_good() {
        return Ok(built);
    }
    let mut command = Command::new(release_folder().join("conformance"));
    command.arg(folder);
    Step::program("conformance", command).run()
}

/// Where the field cases lie, beside the checkout.
const FIELD: &str = "../shared/field/cases.py";

/// Runs the field cases on the program; they are not run where they are not there.
fn field() -> anyhow::Result<Counts> {
    if !Path::new(FIELD).is_file() {
        return Ok(Counts::not_run("field", &format!("there is no {FIELD}")));
    }
    let built = build()?;
    if !built.is_good() {
        return Ok(built);
    }
    let mut command = Command::new("python3");
    command.arg(FIELD).arg(release_folder().join("moe-cl"));
    Step::program("field cases", command).run()
}

/// The share of crashes that CI tries.
const CRASH_SHARE: [&str; 3] = ["--kills=60", "--flips=60", "--rivals=6"];

/// Builds all programs and examples: the whole workspace with its development dependencies, which examples bring in, so that the
/// builds of the libraries that the tests use serve here too.
///
/// # Errors
/// When cargo cannot be started.
pub fn build() -> anyhow::Result<Counts> {
    let arguments = ["build", "--release", "--workspace", "--bins", "--examples"];
    Step::cargo("build", &arguments).run()
}

/// Where cargo puts what it makes.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// Where release builds put programs.
pub fn release_folder() -> PathBuf {
    target_folder().join("release")
}
