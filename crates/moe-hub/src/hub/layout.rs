//! The Hub's own cache, where `huggingface_hub` and other programs find a model's files too.
//!
//! ```text
//! models--owner--name/blobs/<etag>               the bytes, once per content
//! models--owner--name/snapshots/<commit>/<file>  links to them
//! models--owner--name/refs/<branch>              the commit that a branch stood for when all of its files were there
//! ```
//! What the Hub says chooses names here, and so only what can be a name of that kind is taken: [`is_commit`], [`Etag`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::is_inside;
use crate::error::{Result, SourceError};
use crate::file::{self, make_parent};

/// The folder of one model.
#[derive(Clone, Debug)]
pub(super) struct Layout(PathBuf);

/// What the Hub calls a content: letters, digits, `-`, `_` and `.`, no dot first. Of 64 hexadecimal digits it is the content's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Etag(String);

impl Etag {
    /// The name in a header: without quotes, and without the `W/` of answers that are packed on the way.
    pub(super) fn of(header: &str) -> Option<Self> {
        let name = header.trim().trim_start_matches("W/").trim_matches('"');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name =
            (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain);
        is_name.then(|| Self(name.to_owned()))
    }

    /// The hash that the content must have, where the name is one.
    pub(super) fn sha256(&self) -> Option<&str> {
        let is_hash = self.0.len() == 64 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some(&self.0)
    }
}

/// Whether a revision stands for the same files for ever; folders are named by these.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Layout {
    /// Of `owner/name`, in the cache folder `cache`.
    pub(super) fn new(cache: &Path, repo: &str) -> Self {
        Self(cache.join(format!("models--{}", repo.replace('/', "--"))))
    }

    /// The folder of all files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.0.join("snapshots").join(commit)
    }

    /// Where a content is.
    pub(super) fn blob(&self, etag: &Etag) -> PathBuf {
        self.0.join("blobs").join(&etag.0)
    }

    /// What the content at `path`, a file of a snapshot, is called; none of a file that is no link into `blobs`.
    pub(super) fn content_of(&self, path: &Path) -> Option<Etag> {
        let target = fs::read_link(path).ok()?;
        let etag = Etag::of(target.file_name()?.to_str()?)?;
        let blob = fs::canonicalize(self.blob(&etag)).ok()?;
        (fs::canonicalize(path).ok()? == blob).then_some(etag)
    }

    /// Lets the file `name` of a commit be this content.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &Etag) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        make_parent(&path)?;
        let up = "../".repeat(2 + name.matches('/').count());
        let target = format!("{up}blobs/{}", etag.0);
        match link(Path::new(&target), &self.blob(etag), &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(SourceError::io("link", &path, &error))
            }
            _ => Ok(path),
        }
    }

    /// Forgets a file of a commit and its content, which is damaged. What lies outside the folder stays.
    pub(super) fn forget(&self, path: &Path) {
        if let Some(etag) = self.content_of(path) {
            let _ = fs::remove_file(self.blob(&etag));
        }
        let _ = fs::remove_file(path);
    }

    /// The commit that a branch stood for when the model was last fetched.
    pub(super) fn recorded(&self, branch: &str) -> Option<String> {
        let kept = fs::read_to_string(self.record(branch)?).ok()?;
        let commit = kept.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Takes note that all files of `commit` are there, for those who name the branch without a network. A cache that cannot be
    /// written to costs them that.
    pub(super) fn record_commit(&self, branch: &str, commit: &str) {
        if let Some(record) = self.record(branch).filter(|_| !is_commit(branch))
            && self.recorded(branch).as_deref() != Some(commit)
        {
            let _ = file::write(&record, commit.as_bytes());
        }
    }

    fn record(&self, branch: &str) -> Option<PathBuf> {
        is_inside(branch).then(|| self.0.join("refs").join(branch))
    }
}

#[cfg(unix)]
fn link(target: &Path, _blob: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links that name their target need rights that people do not have on other systems: a second name of the same bytes, else a copy.
#[cfg(not(unix))]
fn link(_target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_of_contents_are_taken() {
        let hash = "a1".repeat(32);
        for (header, name) in [
            ("\"abc\"", Some("abc")),
            ("W/\"abc-1_2.x\"", Some("abc-1_2.x")),
            ("\".hidden\"", None),
            (hash.as_str(), Some(hash.as_str())),
            ("", None),
            ("\"\"", None),
            ("/etc/passwd", None),
            ("\"../../x\"", None),
            ("..", None),
            ("a/b", None),
            ("a\\b", None),
            ("C:x", None),
            ("a\0b", None),
        ] {
            assert_eq!(Etag::of(header), name.map(|it| Etag(it.into())), "{header}");
        }
        assert_eq!(Etag(hash.clone()).sha256(), Some(hash.as_str()));
        assert_eq!(Etag("abc".into()).sha256(), None);
        assert_eq!(Etag::of(&"a".repeat(129)), None);
    }

    #[test]
    fn a_damaged_file_is_forgotten_and_nothing_outside_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, commit) = (Layout::new(dir.path(), "a/b"), "0".repeat(40));
        let etag = Etag::of("content").unwrap();
        file::write(&layout.blob(&etag), b"bytes").unwrap();
        let path = layout.link(&commit, "deep/er/file", &etag).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        assert_eq!(layout.link(&commit, "deep/er/file", &etag).unwrap(), path);
        layout.forget(&path);
        assert!(!path.exists() && !layout.blob(&etag).exists());

        #[cfg(unix)]
        {
            let outside = dir.path().join("content");
            fs::write(&outside, "mine").unwrap();
            std::os::unix::fs::symlink(&outside, &path).unwrap();
            layout.forget(&path);
            assert_eq!(fs::read(&outside).unwrap(), b"mine");
            assert!(!path.exists());
        }
    }
}
