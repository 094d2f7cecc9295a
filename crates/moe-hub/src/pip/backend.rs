//! A source distribution as a file: checked by its hash, never run.
//!
//! pip wants to know what even a distribution that it only downloads is called, and asks its build system, which for old ones means
//! running `setup.py`. Here it asks ours, which says the name that was asked for.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Result, SourceError};

/// Lets `pip download` take the source distribution `package==version` of this hash; files that it needs lie in `folder`.
///
/// # Errors
/// When the disk refuses.
pub(super) fn stand_in(
    pip: &mut Command,
    folder: &Path,
    (package, version): (&str, &str),
    sha256: &str,
) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| SourceError::io("write", &path, &error))?;
        Ok::<_, SourceError>(path)
    };
    // What pip takes for the build system of a distribution that names none.
    write("modules/setuptools/__init__.py", "")?;
    write(
        "modules/setuptools/build_meta.py",
        &include_str!("backend.py")
            // As wheels spell it in names of files.
            .replace("FOLDER", &package.replace(['-', '.'], "_"))
            .replace("PACKAGE", package)
            .replace("VERSION", version),
    )?;
    let requirement = format!("{package}=={version} --hash=sha256:{sha256}\n");
    let requirements = write("requirements.txt", &requirement)?;
    pip.args(["--require-hashes", "--no-build-isolation", "--use-pep517"])
        .args(["--no-binary", package, "-r"])
        .arg(requirements)
        .env("PYTHONPATH", folder.join("modules"));
    Ok(())
}
