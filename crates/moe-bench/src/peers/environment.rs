//! A Python environment with PyTorch, made once with the user's own pip.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, bail};
use moe_kernels::{LEVEL_VARIABLE, Level};

/// glibc maps every large tensor anew and gives it back when it is freed, so that each step pays for its page faults again.
/// With these settings freed memory is kept, in huge pages.
const TUNED_MALLOC: &str = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:\
    glibc.malloc.top_pad=268435456:glibc.malloc.hugetlb=1";
/// What decides what is installed.
const RECIPE: [&str; 3] = ["requirements.txt", "torch.txt", "install.py"];

/// Where the peers run.
pub struct Environment {
    python: PathBuf,
    programs: PathBuf,
    /// Library that makes MKL choose its fast kernels, where it could be built.
    fast_mkl: Option<PathBuf>,
}

impl Environment {
    /// Makes the environment below `folder` with `python`, from the recipe among `programs`, unless it is there.
    ///
    /// # Errors
    /// When Python, pip or PyTorch cannot be had.
    pub fn prepare(folder: &Path, python: &str, programs: &Path) -> anyhow::Result<Self> {
        let recipe: String = RECIPE
            .iter()
            .map(|name| {
                let path = programs.join(name);
                std::fs::read_to_string(&path).with_context(|| format!("{}: run this from the root of the project, or name its folder with --programs", path.display()))
            })
            .collect::<anyhow::Result<_>>()?;
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        // Python finds its environment by the path that it is called by.
        let folder = &std::path::absolute(folder)?;
        let (venv, done) = (folder.join("venv"), folder.join("installed"));
        let own = match cfg!(windows) {
            true => venv.join("Scripts/python.exe"),
            false => venv.join("bin/python"),
        };
        if std::fs::read_to_string(&done).ok().as_ref() != Some(&recipe) {
            eprintln!(
                "installing PyTorch into {} (once, some minutes)",
                venv.display()
            );
            let mut make = Command::new(python);
            make.args(["-m", "venv", "--clear"]).arg(&venv);
            run(
                make,
                "cannot make a Python environment: is Python 3 with its venv module there? (Debian: python3-venv; another Python: --python)",
            )?;
            let mut install = Command::new(&own);
            install.arg("-B").arg(programs.join("install.py"));
            run(
                install,
                "PyTorch cannot be installed: pip needs a package index that has it (PIP_INDEX_URL), or a folder of wheels (PIP_FIND_LINKS)",
            )?;
            moe_core::atomic::write_file(&done, recipe.as_bytes())?;
        }
        let fast_mkl = fast_mkl(folder, programs);
        if fast_mkl.is_none() {
            eprintln!(
                "no C compiler for this platform's MKL: the peers run with the kernels that MKL chooses itself"
            );
        }
        Ok(Self {
            python: own,
            programs: programs.into(),
            fast_mkl,
        })
    }

    /// A program of the peers on a base, with as many threads as there are processors.
    pub fn command(&self, program: &str, base: &Path) -> Command {
        let threads = available_parallelism()
            .map_or(1, |count| count.get())
            .to_string();
        let mut command = Command::new(&self.python);
        // No compiled files beside the sources.
        command.arg("-B").arg(self.programs.join(program));
        command
            .arg("--base")
            .arg(base)
            .args(["--threads", &threads]);
        command
            .env("OMP_NUM_THREADS", &threads)
            .env("MKL_NUM_THREADS", &threads);
        command.env("GLIBC_TUNABLES", TUNED_MALLOC);
        if let Some(library) = &self.fast_mkl {
            command.env("LD_PRELOAD", library);
        }
        command
    }
}

/// Holds a program, ours or a peer's, to the instructions of `level` as far as its libraries have a variable for that. (The `gemm`
/// crate has none.)
pub fn hold(command: &mut Command, level: Option<Level>) {
    let Some(level) = level else {
        return;
    };
    // Of PyTorch's own loops, of oneDNN, of MKL.
    let (aten, onednn, mkl) = match level {
        Level::Portable => ("default", "SSE41", "SSE4_2"),
        Level::Avx2 => ("avx2", "AVX2", "AVX2"),
        Level::Avx512 => ("avx512", "AVX512_CORE_AMX", "AVX512"),
    };
    command
        .env(LEVEL_VARIABLE, level.name())
        .env("ATEN_CPU_CAPABILITY", aten)
        .env("ONEDNN_MAX_CPU_ISA", onednn)
        .env("MKL_ENABLE_INSTRUCTIONS", mkl);
}

fn run(mut command: Command, hint: &str) -> anyhow::Result<()> {
    // Our standard output is for the table.
    command.stdin(Stdio::null()).stdout(io::stderr());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{hint}\n{command:?} ended with {status}"),
        Err(error) => bail!("{hint}\n{command:?}: {error}"),
    }
}

/// Only x86-64 has MKL, and only Linux loads it so.
fn fast_mkl(folder: &Path, programs: &Path) -> Option<PathBuf> {
    let library = folder.join("fast_mkl.so");
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&library);
    compile.arg(programs.join("fast_mkl.c"));
    let has_mkl = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    (has_mkl && compile.status().is_ok_and(|status| status.success())).then_some(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

    #[test]
    fn a_machine_without_python_is_told_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let prepared = Environment::prepare(folder.path(), "no-such-python", Path::new(PROGRAMS));
        let message = prepared.err().expect("no Python").to_string();
        assert!(
            message.contains("--python") && message.contains("no-such-python"),
            "{message}"
        );
        let prepared = Environment::prepare(folder.path(), "python3", folder.path());
        let message = prepared.err().expect("no recipe").to_string();
        assert!(message.contains("--programs"), "{message}");
    }

    #[test]
    fn every_program_in_python_compiles() {
        let python = Command::new("python3").arg("--version").output();
        if !python.is_ok_and(|output| output.status.success()) {
            eprintln!("no python3: nothing compiled");
            return;
        }
        for entry in std::fs::read_dir(PROGRAMS).expect("the programs") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "py") {
                // As py_compile, without a file.
                let check = "import ast, sys; ast.parse(open(sys.argv[1], encoding='utf8').read(), sys.argv[1])";
                let status = Command::new("python3")
                    .args(["-c", check])
                    .arg(&path)
                    .status();
                assert!(
                    status.expect("python3 runs").success(),
                    "{}",
                    path.display()
                );
            }
        }
    }
}
