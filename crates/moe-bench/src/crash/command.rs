//! A run as a process, with a fault or without.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// What happens to a process.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is killed after this time.
    Late(Duration),
    /// It is killed before this call that changes a file, the first being 1.
    Before(u64),
    /// It is killed in the middle of this call, where that writes.
    Within(u64),
    /// From this call on the disk is full.
    Full(u64),
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; none where it was killed.
    pub code: Option<i32>,
    /// What it said on standard error.
    pub said: String,
}

/// Longest time for one process.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts processes of the `moe-cl` command.
#[derive(Clone, Debug)]
pub struct Starter {
    program: PathBuf,
    preload: PathBuf,
    /// Where they run.
    pub folder: PathBuf,
}

impl Starter {
    /// Compiles what is preloaded into `folder`, where the processes will run.
    ///
    /// # Errors
    /// When the command is not beside this program, or there is no C compiler.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("moe-cl");
        ensure!(
            program.is_file(),
            "{} is not built: cargo build --release --workspace --bins",
            program.display()
        );
        let (source, preload) = (folder.join("faults.c"), folder.join("faults.so"));
        fs::write(&source, include_str!("faults.c"))?;
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&preload, &source])
            .args(["-ldl"])
            .status()
            .context("cc, which links every Rust program, cannot be started")?;
        ensure!(status.success(), "cc cannot compile {}", source.display());
        Ok(Self {
            program,
            preload,
            folder: folder.into(),
        })
    }

    /// The command with these arguments, whose changes of files below the folder `run` count.
    fn command(&self, arguments: &[&str], run: &str, fault: Option<Fault>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.folder)
            .env("MOE_CL_CACHE", self.folder.join("cache"))
            .env("RAYON_NUM_THREADS", "1")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (kind, at) = match fault {
            Some(Fault::Before(at)) => ("kill", at),
            Some(Fault::Within(at)) => ("torn", at),
            Some(Fault::Full(at)) => ("full", at),
            Some(Fault::Late(_)) | None => return command,
        };
        command
            .env("LD_PRELOAD", &self.preload)
            .env("FAULT_BELOW", format!("{run}/"))
            .env("FAULT", kind)
            .env("FAULT_AT", at.to_string());
        command
    }

    /// Runs the command to its end, or to the fault.
    ///
    /// # Errors
    /// When it cannot be started, or does not end.
    pub fn run(
        &self,
        arguments: &[&str],
        run: &str,
        fault: Option<Fault>,
    ) -> anyhow::Result<Ended> {
        let mut child = self.command(arguments, run, fault).spawn()?;
        if let Some(Fault::Late(after)) = fault {
            sleep(after);
            child.kill()?;
        }
        ended(child)
    }

    /// Starts the command and comes back.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, arguments: &[&str], run: &str) -> anyhow::Result<Child> {
        Ok(self.command(arguments, run, None).spawn()?)
    }

    /// How many calls of the command change files below the folder `run`, and how long it takes.
    ///
    /// # Errors
    /// When it fails.
    pub fn count(&self, arguments: &[&str], run: &str) -> anyhow::Result<(u64, Duration)> {
        let (begin, file) = (Instant::now(), self.folder.join(format!("{run}.count")));
        let mut command = self.command(arguments, run, Some(Fault::Before(0)));
        let ended = ended(command.env("FAULT_COUNT", &file).spawn()?)?;
        ensure!(
            ended.code == Some(0),
            "moe-cl {} failed: {}",
            arguments.join(" "),
            ended.said
        );
        Ok((fs::read_to_string(&file)?.trim().parse()?, begin.elapsed()))
    }
}

/// Waits for a process to end.
///
/// # Errors
/// When it does not.
pub fn ended(mut child: Child) -> anyhow::Result<Ended> {
    let begin = Instant::now();
    // What it says fits into a pipe.
    while child.try_wait()?.is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill()?;
            bail!("a run has not ended after {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output()?;
    Ok(Ended {
        code: output.status.code(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
