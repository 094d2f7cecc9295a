//! The commit that a branch stands for: asked once, kept, and used for every file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::origin::{Origins, Repository};
use crate::Web;
use crate::cache::Cache;
use crate::error::{Result, SourceError, Unanswered};

/// Where the sources of suites are fetched from, and where they are kept. What a branch stands for is asked once, so that all that is
/// made with this is of one version.
#[derive(Debug)]
pub struct Sources<'a> {
    pub(super) origins: &'a Origins,
    pub(super) cache: &'a Cache,
    pub(super) web: &'a Web,
    /// By the file that keeps the answer.
    asked: RefCell<BTreeMap<PathBuf, Revision>>,
}

/// What the files of a source are named by.
#[derive(Clone, Debug)]
pub(super) enum Revision {
    /// A commit.
    Commit(String),
    /// A branch of which nobody can say now what it stands for: its files are there by hand, or cannot be had.
    Unknown(String, SourceError),
}

impl<'a> Sources<'a> {
    /// From these hubs, into this cache, through this client.
    pub fn new(origins: &'a Origins, cache: &'a Cache, web: &'a Web) -> Self {
        Self {
            origins,
            cache,
            web,
            asked: RefCell::default(),
        }
    }

    /// The commit of a repository that `revision` names; `file` is one of its files. Without a network it is the commit that the
    /// branch stood for last.
    ///
    /// # Errors
    /// When the hub has no such branch, or does not say what it stands for.
    pub(super) fn commit(
        &self,
        repository: &Repository<'_>,
        revision: &str,
        file: &str,
    ) -> Result<Revision> {
        if is_commit(revision) {
            return Ok(Revision::Commit(revision.into()));
        }
        let folder = repository.folder(self.cache).join("refs");
        let record = revision
            .split('/')
            .fold(folder, |path, part| path.join(part));
        if let Some(known) = self.asked.borrow().get(&record) {
            return Ok(known.clone());
        }
        let answer = match repository.hub {
            "github" => self.head_of(repository, revision),
            _ => self.header_of(repository, revision, file),
        };
        let found = match answer {
            Ok(commit) => {
                // With a cache that cannot be written, what is there can still be used.
                if fs::read_to_string(&record).ok().as_deref() != Some(commit.as_str()) {
                    self.cache.keep(&record, commit.as_bytes());
                }
                Revision::Commit(commit)
            }
            Err(Unanswered::Refused(error)) => return Err(error),
            Err(Unanswered::Unreached(error)) => match fs::read_to_string(&record) {
                Ok(commit) if is_commit(&commit) => Revision::Commit(commit),
                _ => Revision::Unknown(revision.into(), error),
            },
        };
        self.asked.borrow_mut().insert(record, found.clone());
        Ok(found)
    }

    /// Of the Hugging Face Hub, which says with every file of which commit it is.
    fn header_of(
        &self,
        repository: &Repository<'_>,
        branch: &str,
        file: &str,
    ) -> std::result::Result<String, Unanswered> {
        let address = repository.file(self.origins, &branch.replace('/', "%2F"), file);
        let token = self.origins.token.as_deref();
        let commit = self.web.header(&address, token, "x-repo-commit")?;
        commit.filter(|commit| is_commit(commit)).ok_or_else(|| {
            unsaid(format!(
                "{address} does not say which commit {branch:?} stands for"
            ))
        })
    }

    /// Of GitHub, as `git ls-remote` asks.
    fn head_of(
        &self,
        repository: &Repository<'_>,
        branch: &str,
    ) -> std::result::Result<String, Unanswered> {
        let (github, repo) = (&self.origins.github, repository.repo);
        let address = format!("{github}/{repo}.git/info/refs?service=git-upload-pack");
        let answer = self.web.text(&address)?;
        let heads = heads(&answer);
        // A tag with a message of its own (`^{}`) stands for the commit that it is on.
        let names = [
            format!("refs/heads/{branch}"),
            format!("refs/tags/{branch}^{{}}"),
            format!("refs/tags/{branch}"),
            branch.to_owned(),
        ];
        let commit = names.iter().find_map(|name| heads.get(name.as_str()));
        commit
            .map(|commit| (*commit).to_owned())
            .ok_or_else(|| unsaid(format!("{github}/{repo} has no branch or tag {branch:?}")))
    }
}

fn unsaid(message: String) -> Unanswered {
    let error = SourceError::new(message);
    Unanswered::Refused(error.with_hint("give the commit itself as `commit` of the manifest"))
}

/// Whether a revision is a commit, in full or cut short (seven digits at least, as git does it), and so stands for the same files for ever.
fn is_commit(revision: &str) -> bool {
    (7..=64).contains(&revision.len()) && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What git's first answer (packets of four digits of length and a line each) says that branches and tags stand for.
fn heads(mut packets: &[u8]) -> BTreeMap<&str, &str> {
    let mut heads = BTreeMap::new();
    while let Some((length, rest)) = packets.split_at_checked(4) {
        let length = std::str::from_utf8(length).ok();
        let Some(length) = length.and_then(|length| usize::from_str_radix(length, 16).ok()) else {
            break;
        };
        // A length below four is a mark without a line.
        let Some((line, rest)) = rest.split_at_checked(length.saturating_sub(4)) else {
            break;
        };
        packets = rest;
        let Ok(line) = std::str::from_utf8(line) else {
            continue;
        };
        // The first line has what the server can do after a zero byte.
        let line = line.split(['\0', '\n']).next().unwrap_or_default();
        if let Some((commit, name)) = line.split_once(' ').filter(|(commit, _)| is_commit(commit)) {
            heads.insert(name, commit);
        }
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_packets_are_read_and_what_is_none_is_not() {
        let sha = ["1", "2", "3"].map(|digit| digit.repeat(40));
        let packet = |line: String| format!("{:04x}{line}", line.len() + 4);
        let answer = [
            packet("# service=git-upload-pack\n".into()),
            "0000".into(),
            packet(format!("{} HEAD\0multi_ack side-band\n", sha[0])),
            packet(format!("{} refs/heads/a/b\n", sha[1])),
            packet(format!("{} refs/tags/v1^{{}}\n", sha[2])),
            "0000".into(),
        ]
        .concat();
        let found = heads(answer.as_bytes());
        let expected = [("HEAD", 0), ("refs/heads/a/b", 1), ("refs/tags/v1^{}", 2)];
        let expected = expected.map(|(name, commit)| (name, sha[commit].as_str()));
        assert_eq!(found, BTreeMap::from(expected));
        for broken in [
            "",
            "00",
            "zzzz",
            "0001",
            "ffffshort",
            "<html>no git here</html>",
        ] {
            assert!(heads(broken.as_bytes()).is_empty(), "{broken}");
        }
        assert!(heads(&answer.as_bytes()[..answer.len() - 30]).len() < 3);
    }

    #[test]
    fn a_commit_is_told_from_a_branch() {
        for commit in ["c0ffee0", &"a1".repeat(20), &"0".repeat(64)] {
            assert!(is_commit(commit));
        }
        for branch in ["main", "v1.0", "decade", "refs/pr/1", "c0ffeeg"] {
            assert!(!is_commit(branch));
        }
    }
}
