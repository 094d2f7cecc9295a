//! Instruction counts of the main kernels, against those on record: a regression shows whatever else the machine does.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::counts::Counts;
use crate::test::{build, release_folder};

/// The record.
const RECORD: &str = "crates/moe-bench/guards.txt";
/// How much more than recorded is allowed, in parts of the record.
const TOLERANCE: f64 = 0.03;
/// And in instructions: what allocating memory and handing work to threads takes differs from machine to machine.
const SLACK: f64 = 5_000.0;
/// The C library clears and copies memory in a way that it chooses by the CPU's maker, and one of them counts every byte as an
/// instruction. This makes it loop over vectors everywhere.
const C_LIBRARY: &str =
    "glibc.cpu.x86_rep_stosb_threshold=2000000000:glibc.cpu.x86_rep_movsb_threshold=2000000000";
/// Calls of the two runs whose difference is counted.
const CALLS: [u64; 2] = [1, 3];
/// Holds the kernels to a level.
const LEVEL: &str = "MOE_KERNELS_LEVEL";

/// Who counts the instructions of which levels.
#[derive(Clone, Copy)]
enum Counter {
    /// Hides AVX-512.
    Valgrind,
    /// The processor itself, where it lets us.
    Perf,
}

const LEVELS: [(&str, Counter); 3] = [
    ("avx2", Counter::Valgrind),
    ("portable", Counter::Valgrind),
    ("avx512", Counter::Perf),
];

/// Counts every kernel and compares with the record; or, to `record`, writes that.
///
/// # Errors
/// When a program cannot be started or the record cannot be read or written.
pub fn run(record: bool) -> anyhow::Result<Counts> {
    if let Some(why) = missing() {
        return Ok(Counts::not_run("guards", why));
    }
    let built = build()?;
    if !built.is_good() {
        return Ok(built);
    }
    let recorded = match record {
        true => BTreeMap::new(),
        false => read(&std::fs::read_to_string(RECORD).with_context(|| RECORD.to_string())?)?,
    };
    let mut all = Counts::default();
    let mut counted = BTreeMap::new();
    for (level, counter) in LEVELS {
        let of_level = |name: &String| name.split_once('/').is_some_and(|it| it.0 == level);
        if let Some(why) = counter.missing(level) {
            all += Counts::not_run(&format!("guards of {level}"), why);
            continue;
        }
        let recorded = recorded
            .clone()
            .into_iter()
            .filter(|it| of_level(&it.0))
            .collect::<BTreeMap<_, _>>();
        // The record is made where it can be, and by one who may see more.
        if !record && recorded.is_empty() {
            all += Counts::not_run(&format!("guards of {level}"), "nothing is on record");
            continue;
        }
        let mut of_this = BTreeMap::new();
        for kernel in kernels()? {
            let name = format!("{level}/{kernel}");
            let count = counter.count(level, &kernel)?;
            println!("{name:<44} {count:>12} instructions");
            of_this.insert(name, count);
        }
        if !record {
            all += compare(&recorded, &of_this);
        }
        counted.append(&mut of_this);
    }
    if record {
        std::fs::write(RECORD, text(&counted)).with_context(|| RECORD.to_string())?;
        println!("{RECORD} is written");
    }
    Ok(all)
}

/// Why nothing can be counted here.
fn missing() -> Option<&'static str> {
    if has_avx2() {
        no_valgrind()
    } else {
        Some("the record is of x86-64 with AVX2, which this machine is not")
    }
}

/// Why valgrind cannot be used here.
pub fn no_valgrind() -> Option<&'static str> {
    let version = Command::new("valgrind").arg("--version").output();
    let is_here = version.is_ok_and(|output| output.status.success());
    (!is_here).then_some("no valgrind found; on Debian `apt-get install valgrind`")
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

fn program() -> PathBuf {
    release_folder().join("guards")
}

fn kernels() -> anyhow::Result<Vec<String>> {
    let output = Command::new(program())
        .output()
        .context("cannot start guards")?;
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.lines().map(str::to_string).collect())
}

impl Counter {
    /// Why it cannot count a level here.
    fn missing(self, level: &str) -> Option<&'static str> {
        match self {
            Self::Valgrind => None,
            Self::Perf => match self.instructions(level, "adamw", 1) {
                Ok(_) => None,
                Err(_) => Some(
                    "`perf stat` counts no instructions here, or the processor has no AVX-512; valgrind hides it",
                ),
            },
        }
    }

    /// Instructions of one call on one thread.
    fn count(self, level: &str, kernel: &str) -> anyhow::Result<u64> {
        let [few, more] = CALLS;
        let first = self.instructions(level, kernel, few)?;
        let second = self.instructions(level, kernel, more)?;
        Ok(second.saturating_sub(first) / (more - few))
    }

    /// Instructions of a whole run.
    fn instructions(self, level: &str, kernel: &str, calls: u64) -> anyhow::Result<u64> {
        let (name, arguments): (_, &[&str]) = match self {
            Self::Valgrind => (
                "valgrind",
                &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
            ),
            Self::Perf => ("perf", &["stat", "-x,", "-e", "instructions:u"]),
        };
        let mut command = Command::new(name);
        command.args(arguments).arg(program());
        command.args([kernel, &calls.to_string()]);
        command.env("RAYON_NUM_THREADS", "1").env(LEVEL, level);
        command.env("GLIBC_TUNABLES", C_LIBRARY);
        let output = command
            .output()
            .with_context(|| format!("cannot start {name}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let count = match self {
            Self::Valgrind => collected(&said),
            Self::Perf => retired(&said),
        };
        match count {
            Some(count) if output.status.success() => Ok(count),
            _ => bail!("{name} could not count {kernel}:\n{said}"),
        }
    }
}

/// From the line `123,,instructions:u,…` of `perf stat -x,`.
fn retired(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("instructions"))?;
    line.split(',').next()?.trim().parse().ok()
}

/// From the line `==1== Collected : 123`.
fn collected(said: &str) -> Option<u64> {
    let line = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

fn text(counted: &BTreeMap<String, u64>) -> String {
    let mut text = String::from(
        "# Instructions of one call on one thread by level, counted by valgrind, and by the processor where that has AVX-512 and tells.\n\
         # Written by `cargo xtask guards --record`. The compiler has a say in them:\n",
    );
    let _ = writeln!(text, "# {}", compiler());
    for (name, count) in counted {
        let _ = writeln!(text, "{name} {count}");
    }
    text
}

fn read(text: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.starts_with('#'))
        .map(|(number, line)| {
            let (name, count) = line.split_once(' ').unwrap_or((line, ""));
            let count = count.parse();
            let count = count.with_context(|| {
                format!("{RECORD}:{}: `{line}` is not a name and a count; write it anew with `cargo xtask guards --record`", number + 1)
            })?;
            Ok((name.to_string(), count))
        })
        .collect()
}

fn compiler() -> String {
    let version = Command::new("rustc").arg("--version").output();
    version.map_or_else(
        |_| "unknown rustc".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_string(),
    )
}

/// Every kernel is a test. One that got cheaper passes; a new one, or one that is gone, does not.
fn compare(recorded: &BTreeMap<String, u64>, counted: &BTreeMap<String, u64>) -> Counts {
    let mut counts = Counts::default();
    let again = "`cargo xtask guards --record` writes the record";
    for (name, &now) in counted {
        match recorded.get(name) {
            Some(&then) => {
                let change = now as f64 / then.max(1) as f64 - 1.0;
                let allowed = TOLERANCE + SLACK / then.max(1) as f64;
                if change > allowed {
                    println!(
                        "FAIL {name}: {now} instructions, {:+.1} % against the record ({then}); where that is meant, {again}",
                        100.0 * change
                    );
                    counts.failed += 1;
                    continue;
                }
                if change < -allowed {
                    println!("{name}: {:+.1} %: {again}", 100.0 * change);
                }
                counts.passed += 1;
            }
            None => {
                println!("FAIL {name}: not on record; {again}");
                counts.failed += 1;
            }
        }
    }
    for name in recorded.keys().filter(|name| !counted.contains_key(*name)) {
        println!("FAIL {name}: on record, but there is no such kernel; {again}");
        counts.failed += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
        rows.iter()
            .map(|(name, count)| (name.to_string(), *count))
            .collect()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let counted = table(&[("attention", 12), ("linear", 345)]);
        assert_eq!(read(&text(&counted)).expect("it was written so"), counted);
        let error = read("# x\nlinear").expect_err("no count").to_string();
        assert!(error.contains("guards.txt:2"), "{error}");
    }

    #[test]
    fn only_growth_beyond_the_tolerance_fails() {
        let million = 1_000_000;
        let recorded = table(&[("a", million), ("b", million), ("c", million), ("gone", 1)]);
        let counted = table(&[
            ("a", million + 34_900),
            ("b", million + 35_100),
            ("c", million / 2),
            ("new", 1),
        ]);
        let counts = compare(&recorded, &counted);
        assert_eq!((counts.passed, counts.failed), (2, 3));
    }

    #[test]
    fn the_counters_line_is_found() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== nothing"), None);
        let said = "81469,,instructions:u,12,100.00,,\n";
        assert_eq!(retired(said), Some(81_469));
        assert_eq!(retired("<not supported>,,instructions:u,0,100.00,,"), None);
    }
}
