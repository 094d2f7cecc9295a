//! How many crates the command is made of: each is time to build and code to trust.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::counts::Counts;

/// More than these the command may not take with its default features.
const MOST: usize = 300;

/// Counts the packages that `cargo build -p moe-cli` compiles for this machine, by name and version, build scripts' own included.
///
/// # Errors
/// When cargo cannot be started or cannot resolve the dependencies.
pub fn run() -> anyhow::Result<Counts> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--package", "moe-cli", "--edges", "normal,build"])
        .args(["--prefix", "none"])
        .output()
        .context("cannot start cargo tree")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo tree: {said}");
    let crates = packages(&String::from_utf8_lossy(&output.stdout));
    println!("the command is made of {crates} crates, {MOST} at most");
    let mut counts = Counts::default();
    if crates <= MOST {
        counts.passed = 1;
    } else {
        println!(
            "FAIL the command takes more than {MOST} crates: put what not everyone needs behind a feature"
        );
        counts.failed = 1;
    }
    Ok(counts)
}

/// Different packages of a tree, whose lines begin with `name version`.
fn packages(tree: &str) -> usize {
    let named = tree.lines().filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        Some((name, rest.split(' ').next()?))
    });
    named.collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_once_per_version() {
        let tree = "moe-cli v0.1.0 (/x)\nsyn v2.0.1\nsyn v2.0.1 (*)\n\nsyn v3.0.0\nserde_derive v1.0.0 (proc-macro)\n";
        assert_eq!(packages(tree), 4);
    }
}
