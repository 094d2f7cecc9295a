//! Runs under kills, full disks, flipped bits and rivals: what comes of them is, bit for bit, what comes of a run that was left in peace.

mod command;
mod outcome;
mod parallel;
mod round;
mod setting;

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::bail;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::tiny::{write_base, write_task};
use command::Starter;
use parallel::in_parallel;
use round::{Kind, Round, undisturbed};
use setting::Setting;

/// How much is done to runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Kills and full disks
    #[arg(long, default_value_t = 1000)]
    pub kills: usize,
    /// Flipped bits
    #[arg(long, default_value_t = 1000)]
    pub flips: usize,
    /// Second processes on a directory that another writes
    #[arg(long, default_value_t = 50)]
    pub rivals: usize,
    /// What the moments and bits are drawn from
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Runs at a time
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Where runs with differences are put
    #[arg(long, value_name = "DIR", default_value = "target/crash")]
    pub keep: PathBuf,
}

/// What a run suffers in the mean before it comes to its end all the same.
const FAULTS_IN_THE_MEAN: usize = 2;

/// Does all that, prints a line for each setting and every difference.
///
/// # Errors
/// When there is a difference, or a run fails that nothing disturbs.
pub fn run(options: &Options, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let starter = Starter::new(folder)?;
    write_base(&folder.join("base"))?;
    for task in 0..3 {
        write_task(folder, task)?;
    }
    let settings = Setting::all();
    let known = in_parallel(options.threads, settings.len(), |index| {
        undisturbed(&settings[index], &starter)
    });
    let known = known.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let calls: u64 = known.iter().map(|known| known.calls).sum();
    writeln!(
        out,
        "{} settings, {} calls that change a file in the mean",
        known.len(),
        calls / known.len() as u64
    )?;

    let rounds: Vec<(Kind, usize)> = [
        (Kind::Kills, options.kills.div_ceil(FAULTS_IN_THE_MEAN)),
        (Kind::Flip, options.flips),
        (Kind::Rival, options.rivals),
    ]
    .into_iter()
    .flat_map(|(kind, count)| (0..count).map(move |index| (kind, index)))
    .collect();
    let (begin, done) = (Instant::now(), AtomicUsize::new(0));
    let said = Mutex::new(&mut *out);
    let outcomes = in_parallel(options.threads, rounds.len(), |index| {
        let (kind, number) = rounds[index];
        let round = Round {
            kind,
            known: &known[number % known.len()],
            name: format!("run{index}"),
            starter: &starter,
            random: ChaCha8Rng::seed_from_u64(options.seed.wrapping_mul(1 << 20) + index as u64),
        };
        let outcome = round.run(&options.keep);
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(100)
            && let Ok(mut out) = said.lock()
        {
            let left = begin.elapsed().as_secs_f64() / done as f64 * (rounds.len() - done) as f64;
            let _ = writeln!(out, "{done} of {} runs, {left:.0} s left", rounds.len());
        }
        outcome
    });
    let mut counts: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
    for ((kind, number), outcome) in rounds.iter().zip(outcomes) {
        let (faults, failed) = counts.entry(*kind).or_default();
        match outcome {
            Ok(suffered) => *faults += suffered,
            Err(error) => {
                *failed += 1;
                let setting = &known[number % known.len()].setting;
                writeln!(
                    out,
                    "FAIL {kind:?} {} {:?}: {error:#}",
                    setting.method, setting.way
                )?;
            }
        }
    }
    let mut failed = 0;
    for (kind, (faults, differences)) in counts {
        writeln!(
            out,
            "{kind:?}: {faults} suffered, {differences} runs with differences"
        )?;
        failed += differences;
    }
    match failed {
        0 => Ok(()),
        failed => bail!(
            "{failed} runs are not what they should be; they lie in {}",
            options.keep.display()
        ),
    }
}
