//! The `deny` stage.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::counts::Counts;
use crate::step::Step;

/// Where cargo-deny keeps advisories, below the folder of cargo.
const ADVISORIES: &str = "advisory-dbs";

/// What the dependencies are: licences, sources, versions that are there twice, as `deny.toml` has it; and whether an advisory is out
/// against one, where a snapshot of the advisories lies on this machine. No advisory is fetched; crates are, as for a build.
///
/// # Errors
/// When cargo cannot be started.
pub fn run() -> anyhow::Result<Counts> {
    if !is_there() {
        return Ok(Counts::not_run(
            "deny",
            "cargo-deny is not installed (cargo install cargo-deny)",
        ));
    }
    let check = |what: &[&str]| {
        let mut arguments = vec!["deny", "--locked", "--all-features", "check"];
        arguments.extend(what);
        Step::cargo(what[0], &arguments).run()
    };
    let mut counts = check(&["licenses", "bans", "sources"])?;
    counts += match has_advisories() {
        true => check(&["advisories", "--disable-fetch"])?,
        false => Counts::not_run(
            "deny: advisories",
            "there is no snapshot of them (cargo deny fetch, with a network)",
        ),
    };
    Ok(counts)
}

fn is_there() -> bool {
    let mut command = Command::new("cargo-deny");
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    home.is_some_and(|home| home.join(ADVISORIES).is_dir())
}
