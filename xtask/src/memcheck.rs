//! The `memcheck` stage.

use crate::counts::Counts;
use crate::guards::no_valgrind;
use crate::step::Step;

/// Every test program is started by this one. A leak is no error: threads of a pool never end.
const RUNNER: &str = "target.'cfg(all())'.runner=[\"valgrind\", \"-q\", \"--error-exitcode=99\", \"--leak-check=no\"]";

/// Two tests that count through millions of numbers, and modules whose tests run no kernel: they refuse shapes, or are Burn's own.
const LEFT_OUT: [&str; 4] = [
    "a_row_does_not_depend",
    "exp_is_within",
    "shapes::",
    "composed::",
];

/// The tests of the crate that holds `unsafe` code, under valgrind's memcheck: what is read or written beyond an allocation, and
/// results that depend on a number that nobody wrote.
///
/// # Errors
/// When cargo cannot be started.
pub fn run() -> anyhow::Result<Counts> {
    if let Some(why) = no_valgrind() {
        return Ok(Counts::not_run("memcheck", why));
    }
    let mut step = Step::cargo("kernels under memcheck", &["test", "--release"]);
    step.arguments(&["--package", "moe-kernels", "--lib", "--tests"]);
    step.arguments(&["--config", RUNNER, "--", "--test-threads", "1"]);
    for test in LEFT_OUT {
        step.arguments(&["--skip", test]);
    }
    // Valgrind runs one thread at a time; two are enough to hand work from one to another.
    step.environment("RAYON_NUM_THREADS", "2").run()
}
