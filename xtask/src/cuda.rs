//! The `cuda` stage.

use crate::counts::Counts;
use crate::step::Step;

/// Nothing runs, so that no optimisation and no debug information is wanted.
const PROFILE: [&str; 2] = ["profile.cuda.inherits=\"dev\"", "profile.cuda.debug=false"];

/// Checks that the program with the CUDA back end type-checks. Needs neither a GPU nor the CUDA toolkit.
///
/// # Errors
/// When cargo cannot be started.
pub fn run() -> anyhow::Result<Counts> {
    let mut step = Step::cargo("type check with CUDA", &["check", "--profile", "cuda"]);
    step.arguments(&[
        "--package",
        "moe-cli",
        "--no-default-features",
        "--features",
        "cuda",
    ]);
    for setting in PROFILE {
        step.arguments(&["--config", setting]);
    }
    // The build script of a dependency downloads LLVM, unless it is built for its documentation: a type check needs none.
    step.environment("DOCS_RS", "1").run()
}
