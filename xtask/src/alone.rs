//! The `alone` stage: each library crate by itself, without the features that the others ask of what they share.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::counts::Counts;
use crate::readme::Readme;
use crate::step::Step;
use crate::test::target_folder;

/// What lies in `crates/` and is no library for others to depend on.
const NO_LIBRARIES: [&str; 2] = ["moe-bench", "moe-cli"];

/// Checks every library crate three times: bare; with its tests and examples; and from outside the workspace, as the dependency of
/// a crate that does what its README says. Nothing is linked or run: the `unit` stage runs tests and examples.
///
/// A workspace builds what its members share with all features that any of them asks for. `--package` asks for those of one
/// alone, so what a crate uses but does not ask for is missing here. Release builds, since that profile's dependencies are
/// checked already where clippy has been.
///
/// # Errors
/// When cargo cannot be started, or the crates outside cannot be written.
pub fn run() -> anyhow::Result<Counts> {
    let root = std::env::current_dir()?;
    let target = root.join(target_folder());
    let outside = target.join("alone");
    let crates = libraries(&root.join("crates"))?;
    let mut counts = Counts::default();
    let mut failures = Vec::new();
    let mut readmes = Vec::new();
    for name in &crates {
        match Readme::read(&root.join("crates").join(name).join("README.md")) {
            Ok(readme) => readmes.push((name, readme)),
            Err(error) => {
                counts.failed += 1;
                failures.push(format!("README of {name}: {error:#}"));
            }
        }
    }
    write_outside(&root, &outside, &crates, &readmes)?;

    let mut steps = Vec::new();
    for name in &crates {
        let mut bare = check(format!("{name} alone"), name);
        bare.arguments(&["--lib", "--no-default-features"]);
        let mut tests = check(format!("tests of {name} alone"), name);
        tests.arguments(&["--all-targets"]);
        steps.extend([bare, tests]);
    }
    for (name, _) in &readmes {
        let mut readme = check(format!("README of {name} from outside"), &package(name));
        let manifest = outside.join("Cargo.toml");
        // What it needs was fetched for the steps above; our own crates are in no registry.
        readme.arguments(&["--offline", "--manifest-path", &manifest.to_string_lossy()]);
        steps.push(readme.environment("CARGO_TARGET_DIR", &target.to_string_lossy()));
    }
    for step in steps {
        let what = step.what().to_string();
        let result = step.run()?;
        if !result.is_good() {
            failures.push(format!("{what}: see its errors above"));
        }
        counts += result;
    }
    for failure in failures {
        println!("FAIL {failure}");
    }
    Ok(counts)
}

fn check(what: String, package: &str) -> Step {
    let arguments = ["check", "--release", "--package", package];
    Step::cargo(&what, &arguments)
}

/// Names of the library crates, sorted.
fn libraries(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).context("cannot list crates/")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("Cargo.toml").is_file() && !NO_LIBRARIES.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The crate outside that follows a crate's README.
fn package(name: &str) -> String {
    format!("readme-of-{name}")
}

/// A workspace of crates, each of which depends on what one README says. They share a lock file (a copy of ours: the same versions)
/// and not their features, since one at a time is checked.
fn write_outside(
    root: &Path,
    outside: &Path,
    crates: &[String],
    readmes: &[(&String, Readme)],
) -> anyhow::Result<()> {
    if outside.exists() {
        std::fs::remove_dir_all(outside)?;
    }
    for (name, readme) in readmes {
        let programs = outside.join(package(name)).join("src/bin");
        std::fs::create_dir_all(&programs)?;
        for (number, program) in readme.programs.iter().enumerate() {
            std::fs::write(programs.join(format!("example{number}.rs")), program)?;
        }
        let manifest = format!(
            "[package]\nname = \"{}\"\nedition = \"2024\"\n\n{}",
            package(name),
            readme.dependencies
        );
        std::fs::write(outside.join(package(name)).join("Cargo.toml"), manifest)?;
    }
    let members = readmes.iter().map(|(name, _)| package(name));
    let manifest = manifest(root, crates, &members.collect::<Vec<_>>());
    std::fs::write(outside.join("Cargo.toml"), manifest)?;
    std::fs::copy(root.join("Cargo.lock"), outside.join("Cargo.lock"))?;
    Ok(())
}

/// The manifest of that workspace: READMEs name versions, as of published crates, and these are the ones of this checkout.
fn manifest(root: &Path, crates: &[String], members: &[String]) -> String {
    let mut text =
        format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n\n[patch.crates-io]\n");
    for name in crates {
        let path: PathBuf = root.join("crates").join(name);
        let _ = writeln!(text, "{name} = {{ path = {path:?} }}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readme_that_names_versions_gets_the_crates_of_this_checkout() {
        let names = ["moe-a".to_string(), "moe-b".to_string()];
        let text = manifest(Path::new("/x y"), &names, &["readme-of-moe-a".into()]);
        assert!(text.contains("members = [\"readme-of-moe-a\"]\n"), "{text}");
        assert!(
            text.ends_with("moe-a = { path = \"/x y/crates/moe-a\" }\nmoe-b = { path = \"/x y/crates/moe-b\" }\n"),
            "{text}"
        );
    }
}
