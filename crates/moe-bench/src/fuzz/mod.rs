//! Parsers under inputs that nobody wrote: valid ones with small changes. In this process, without the coverage of the parser: an input
//! that the parser takes joins those that are changed.

mod fetched;
mod model;
mod mutate;
mod targets;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use anyhow::{Context, bail};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use targets::{TARGETS, Target};

/// What to run, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Parsers (all when none is named)
    pub targets: Vec<String>,
    /// Longest time for each
    #[arg(long, default_value_t = 5.0)]
    pub minutes: f64,
    /// Most inputs for each
    #[arg(long, default_value_t = 1_000_000)]
    pub executions: u64,
    /// What the changes are drawn from
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The inputs of the corpus and no others
    #[arg(long)]
    pub replay: bool,
}

/// Longest time for one input.
const HANG: Duration = Duration::from_secs(5);
/// Most memory that one input may take, in kilobytes.
const MEMORY: u64 = 1 << 20;
/// Most inputs that are changed.
const MOST_KEPT: usize = 4096;

/// Runs the parsers.
///
/// # Errors
/// The corpus cannot be read, or a parser panics.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let known = |name: &String| TARGETS.iter().any(|(target, _)| target == name);
    if let Some(unknown) = options.targets.iter().find(|name| !known(name)) {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        bail!("unknown target {unknown:?}; known are {}", names.join(", "));
    }
    // Panics are counted and shown with their input; those of other crates that a parser turns into errors are none.
    std::panic::set_hook(Box::new(|_| {}));
    let mut found = 0;
    for (name, target) in TARGETS {
        if options.targets.is_empty() || options.targets.iter().any(|it| it == name) {
            found += one(name, target, options, out)?;
        }
    }
    match found {
        0 => Ok(()),
        found => bail!("{found} inputs on which a parser panics"),
    }
}

fn one(
    name: &'static str,
    target: Target,
    options: &Options,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let mut kept = corpus(name)?;
    let folder = tempfile::tempdir()?;
    let last = std::env::temp_dir().join(format!("fuzz-{name}.last"));
    let watch = Watch::start(name, last.clone());
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let (seeds, start) = (kept.len() as u64, Instant::now());
    let (mut executions, mut taken, mut panics, mut slowest) = (0u64, 0u64, 0u64, Duration::ZERO);
    let most = if options.replay {
        seeds
    } else {
        options.executions
    };
    while executions < most && start.elapsed().as_secs_f64() < options.minutes * 60.0 {
        let input = match kept.get(usize::try_from(executions)?) {
            Some(seed) if executions < seeds => seed.clone(),
            _ => {
                let empty = Vec::new();
                let input = kept.choose(&mut random).unwrap_or(&empty);
                mutate::mutate(
                    input,
                    kept.choose(&mut random).unwrap_or(&empty),
                    &mut random,
                )
            }
        };
        fs::write(&last, &input)?;
        watch.begin();
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| target(&input, folder.path())));
        slowest = slowest.max(begun.elapsed());
        watch.end();
        executions += 1;
        match result {
            Ok(false) => {}
            Ok(true) => {
                taken += 1;
                if kept.len() < MOST_KEPT && random.random_range(0..8) == 0 {
                    kept.push(input);
                }
            }
            Err(_) => {
                panics += 1;
                keep(&last, name, &format!("panic-{panics}"))?;
            }
        }
    }
    fs::remove_file(&last).ok();
    writeln!(
        out,
        "{name:17} {executions:8} executions, {taken:7} taken, {panics} panics, slowest {:.3} s, {:.0} s, {} MB at most so far",
        slowest.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        peak().unwrap_or(0) / 1024
    )?;
    out.flush()?;
    Ok(panics)
}

/// The inputs that are committed for a target.
fn corpus(name: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    paths.sort();
    let read = |path: &PathBuf| fs::read(path).with_context(|| path.display().to_string());
    paths.iter().map(read).collect()
}

/// Puts the last input where it is found.
fn keep(last: &Path, name: &str, what: &str) -> std::io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("fuzz-{name}-{what}"));
    fs::copy(last, &path)?;
    Ok(path)
}

/// Most memory that this process ever had, in kilobytes.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Ends the process when an input takes too long or too much: neither can be taken back.
struct Watch {
    since: &'static AtomicU64,
    /// Most memory before the input, which the ones before it had.
    before: &'static AtomicU64,
}

impl Watch {
    fn start(name: &'static str, last: PathBuf) -> Self {
        // One per target, for the life of the process.
        let since: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        let before: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(200));
                let begun = since.load(Ordering::Relaxed);
                let hangs =
                    begun > 0 && now().saturating_sub(begun) > HANG.as_millis() as u64 + 1000;
                let most = before.load(Ordering::Relaxed) + MEMORY;
                let bloats = begun > 0 && peak().is_some_and(|peak| peak > most);
                if hangs || bloats {
                    let what = if hangs { "hang" } else { "memory" };
                    let kept = keep(&last, name, what);
                    eprintln!("{name}: {what}: {kept:?}");
                    process::exit(1);
                }
            }
        });
        Self { since, before }
    }

    fn begin(&self) {
        self.before.store(peak().unwrap_or(0), Ordering::Relaxed);
        self.since.store(now(), Ordering::Relaxed);
    }

    fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |it| it.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_read_without_a_panic() {
        let options = Options {
            targets: Vec::new(),
            minutes: 1.0,
            executions: 0,
            seed: 0,
            replay: true,
        };
        run(&options, &mut std::io::sink()).unwrap();
    }
}
