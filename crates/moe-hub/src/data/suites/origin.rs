//! Where a suite's sources are: the public hubs, or a mirror of them; and where they are kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::branch::{Revision, Sources};
use super::manifest::{Format, Task};
use crate::REMEDY;
use crate::cache::Cache;
use crate::error::{Result, SourceError};
use crate::progress::Progress;
use crate::tarball;

/// A source with more than this in it is not one that a suite is made of.
const MAX_BYTES: u64 = 512 << 20;

/// Addresses of the hubs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    /// GitHub, or a mirror that serves `/OWNER/REPO/raw/COMMIT/PATH` and `/OWNER/REPO/archive/COMMIT.tar.gz` as it does.
    pub github: String,
    /// The Hugging Face Hub, or a mirror of it.
    pub hub: String,
    /// What the Hub wants to know the user by.
    pub token: Option<String>,
}

/// Name of the environment variable with a mirror of GitHub.
pub const GITHUB_VARIABLE: &str = "MOE_CL_GITHUB";

impl Origins {
    /// As `MOE_CL_GITHUB`, `HF_ENDPOINT` and `HF_TOKEN` say.
    pub fn from_env() -> Self {
        let variable = |name| {
            std::env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let address = |name, public: &str| {
            variable(name).map_or(public.into(), |value| value.trim_end_matches('/').into())
        };
        Self {
            github: address(GITHUB_VARIABLE, "https://github.com"),
            hub: address("HF_ENDPOINT", "https://huggingface.co"),
            token: variable("HF_TOKEN"),
        }
    }
}

/// A repository.
pub(super) struct Repository<'a> {
    /// `github` or `hf`.
    pub(super) hub: &'static str,
    /// `owner/name`.
    pub(super) repo: &'a str,
}

impl<'a> Repository<'a> {
    fn of(task: &'a Task) -> Result<Self> {
        let named = [("github", "https://github.com/"), ("hf", "hf:datasets/")];
        let (hub, repo) = named
            .iter()
            .find_map(|(hub, start)| Some((*hub, task.source.strip_prefix(start)?)))
            .ok_or_else(|| {
                SourceError::new(format!(
                    "task {}: the source {:?} is neither https://github.com/owner/repo nor hf:datasets/owner/name",
                    task.name, task.source
                ))
            })?;
        let is_name = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        if repo.split('/').count() != 2 || !repo.split('/').all(is_name) {
            return Err(SourceError::new(format!(
                "task {}: {repo:?} is not of the form owner/name",
                task.name
            )));
        }
        Ok(Self { hub, repo })
    }

    /// Where it is kept; what is put there by hand is used as if it had been fetched.
    pub(super) fn folder(&self, cache: &Cache) -> PathBuf {
        let root = cache.downloads().join(self.hub);
        self.repo
            .split('/')
            .fold(root, |path, part| path.join(part))
    }

    /// The address of a file.
    pub(super) fn file(&self, origins: &Origins, commit: &str, path: &str) -> String {
        let repo = self.repo;
        match self.hub {
            "github" => format!("{}/{repo}/raw/{commit}/{path}", origins.github),
            _ => format!("{}/datasets/{repo}/resolve/{commit}/{path}", origins.hub),
        }
    }
}

/// The files of a source: path → bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Gets what `task` is made of, all of one commit, from the cache where it is there.
///
/// # Errors
/// When a file cannot be had; the hint says where to get it and where to put it by hand.
pub fn fetch(
    task: &Task,
    sources: &Sources<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Files> {
    let Sources {
        origins,
        cache,
        web,
        ..
    } = sources;
    let repository = Repository::of(task)?;
    let many = is_many(task);
    if many && repository.hub != "github" {
        return Err(SourceError::new(format!(
            "task {}: `*` and `text_file` are for sources on GitHub",
            task.name
        )));
    }
    let revision = sources
        .commit(&repository, &task.commit, &task.files[0])
        .map_err(|error| error.within(format_args!("no source for {}", task.name)))?;
    let (commit, unknown) = match &revision {
        Revision::Commit(commit) => (commit, None),
        Revision::Unknown(branch, why) => (branch, Some(why)),
    };
    let mut get = |address: &str, path: PathBuf| -> Result<PathBuf> {
        let token = origins.token.as_deref().filter(|_| repository.hub == "hf");
        if path.is_file() {
            return Ok(path);
        }
        // Of a branch that may move, no file is fetched: the next might be another version's.
        let fetched = match unknown {
            Some(why) => Err(why.clone()),
            None => web.fetch(address, token, &path, MAX_BYTES, progress),
        };
        fetched.map_err(|error| unavailable(task, address, &path, &error, REMEDY))?;
        Ok(path)
    };
    let folder = repository.folder(cache);
    if many {
        let name = format!("{commit}.tar.gz");
        let address = format!("{}/{}/archive/{name}", origins.github, repository.repo);
        let archive = get(&address, folder.join(&name))?;
        return members(&archive, &task.files)
            .map_err(|error| SourceError::io("read", &archive, &error));
    }
    let mut files = Files::new();
    for name in &task.files {
        let path = get(
            &repository.file(origins, commit, name),
            folder.join(commit).join(name),
        )?;
        let bytes = fs::read(&path).map_err(|error| SourceError::io("read", &path, &error))?;
        files.insert(name.clone(), bytes);
    }
    Ok(files)
}

/// Whether the source has too many files to ask for each.
fn is_many(task: &Task) -> bool {
    task.files.iter().any(|file| file.contains('*'))
        || (task.read.format == Format::Csv && task.read.text_file.is_some())
}

/// The error of a file that cannot be had, with the ways out; `remedy` is what this build needs to fetch it.
fn unavailable(
    task: &Task,
    address: &str,
    path: &Path,
    error: &SourceError,
    remedy: &str,
) -> SourceError {
    SourceError::new(format!("no source for {}: {error}", task.name)).with_hint(format!(
        "there are three ways out:\n\
         1. {remedy}\n\
         2. get {address} elsewhere and put it here as {}\n\
         3. files of the suite that you have: `data.root` of the experiment names their folder, in place of `data.suite`",
        path.display()
    ))
}

/// The members of a `.tar.gz` of a repository that `wanted` names; a `*` stands for any text in the last part of a path.
fn members(archive: &Path, wanted: &[String]) -> io::Result<Files> {
    // The first part of the path is the repository and the commit.
    let inside = |path: &str| path.split_once('/').map(|(_, path)| path.to_owned());
    let is_wanted = |path: &str| {
        inside(path).is_some_and(|path| wanted.iter().any(|pattern| matches(pattern, &path)))
    };
    let found = tarball::files(File::open(archive)?, MAX_BYTES, is_wanted)?.into_iter();
    let files: Files = found
        .filter_map(|(path, bytes)| Some((inside(&path)?, bytes)))
        .collect();
    if let Some(missing) = wanted
        .iter()
        .find(|pattern| !files.keys().any(|name| matches(pattern, name)))
    {
        return Err(io::Error::other(format!("it holds no {missing}")));
    }
    Ok(files)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => name
            .strip_prefix(start)
            .and_then(|rest| rest.strip_suffix(end))
            .is_some_and(|middle| !middle.contains('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use super::*;

    #[test]
    fn the_way_out_is_one_that_this_build_has() {
        let manifest = Manifest::open("mtl5").unwrap();
        let error = SourceError::new("no");
        let hint = |remedy| {
            let error = unavailable(&manifest.tasks[0], "x", Path::new("y"), &error, remedy);
            error.hint().unwrap().to_owned()
        };
        assert!(hint(REMEDY).contains("HTTPS_PROXY"));
        let without = hint(crate::absent::REMEDY);
        assert!(without.contains("--features hub"), "{without}");
        assert!(!without.contains("HTTPS_PROXY"), "{without}");
    }
}
