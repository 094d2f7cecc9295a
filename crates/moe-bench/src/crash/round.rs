//! One run and what is done to it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use moe_cl::directory::newest_saved;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{
    command::{Ended, Fault, Starter, ended},
    outcome::Whole,
    setting::Setting,
};

/// Most faults that one run suffers.
const FAULTS_A_RUN: usize = 4;

/// A setting with all that is known of it when nothing disturbs it.
pub(super) struct Known {
    pub(super) setting: Setting,
    whole: Whole,
    /// Calls that change files, and the time it takes.
    pub(super) calls: u64,
    time: Duration,
}

/// What is done to one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Kills,
    Flip,
    Rival,
}

/// One run, what is done to it, and what the moments are drawn from.
pub(super) struct Round<'a> {
    pub(super) kind: Kind,
    pub(super) known: &'a Known,
    pub(super) name: String,
    pub(super) starter: &'a Starter,
    pub(super) random: ChaCha8Rng,
}

/// Runs a setting in peace, and once more: whatever is the same then has to be the same after faults.
pub(super) fn undisturbed(setting: &Setting, starter: &Starter) -> anyhow::Result<Known> {
    setting.write(&starter.folder)?;
    let names = ["a", "b"].map(|it| format!("{}-{it}", setting.name));
    let mut counted = Vec::new();
    for name in &names {
        prepare(setting, starter, name)?;
        let command = setting.command(name);
        counted.push(starter.count(&words(&command), name)?);
    }
    let whole = Whole::read(&starter.folder.join(&names[0]))?;
    let differences = whole.differences(&starter.folder.join(&names[1]))?;
    ensure!(
        differences.is_empty(),
        "{} {:?}: two undisturbed runs differ: {}",
        setting.method,
        setting.way,
        differences.join("; ")
    );
    Ok(Known {
        setting: setting.clone(),
        whole,
        calls: counted[1].0,
        time: counted[1].1,
    })
}

/// What has to be there before the command that is disturbed.
fn prepare(setting: &Setting, starter: &Starter, run: &str) -> anyhow::Result<()> {
    let Some(before) = setting.before(run) else {
        return Ok(());
    };
    let ended = starter.run(&words(&before), run, None)?;
    ensure!(ended.code == Some(0), "the run before: {}", ended.said);
    Ok(())
}

impl Round<'_> {
    /// Disturbs the run, lets it end, and compares; how many faults it suffered.
    pub(super) fn run(mut self, keep: &Path) -> anyhow::Result<usize> {
        let run = self.starter.folder.join(&self.name);
        prepare(&self.known.setting, self.starter, &self.name)?;
        let done = match self.kind {
            Kind::Kills => self.kills(&run),
            Kind::Flip => self.flip(&run),
            Kind::Rival => self.rival(&run),
        };
        if done.is_err() && run.is_dir() {
            let place = keep.join(&self.name);
            let _ = fs::remove_dir_all(&place);
            copy(&run, &place)?;
        }
        fs::remove_dir_all(&run)?;
        done
    }

    fn kills(&mut self, run: &Path) -> anyhow::Result<usize> {
        let (mut suffered, mut faults) = (0, Vec::new());
        while suffered < FAULTS_A_RUN {
            let fault = self.fault();
            faults.push(fault);
            let ended = self.disturbed(Some(fault))?;
            match (fault, ended.code) {
                // Done before it happened.
                (_, Some(0)) => break,
                (Fault::Full(_), Some(_)) => ensure!(
                    ended.said.contains("No space left"),
                    "{faults:?}: {}",
                    ended.said
                ),
                (_, Some(code)) => bail!("{faults:?}: exit status {code}: {}", ended.said),
                (_, None) => {}
            }
            suffered += 1;
            // Whatever a kill leaves behind is whole.
            let saved = newest_saved(run, |_| true).with_context(|| format!("{faults:?}"))?;
            let damaged = saved.map(|saved| saved.passed_over).unwrap_or_default();
            ensure!(damaged.is_empty(), "{faults:?}: {}", damaged.join("; "));
        }
        self.to_its_end()?;
        let differences = self.known.whole.differences(run)?;
        ensure!(
            differences.is_empty(),
            "{faults:?}: {}",
            differences.join("; ")
        );
        Ok(suffered)
    }

    fn fault(&mut self) -> Fault {
        let call = self.random.random_range(1..=self.known.calls);
        match self.random.random_range(0..4) {
            0 => Fault::Late(self.known.time.mul_f64(self.random.random_range(0.0..1.0))),
            1 => Fault::Before(call),
            2 => Fault::Within(call),
            _ => Fault::Full(call),
        }
    }

    fn flip(&mut self, run: &Path) -> anyhow::Result<usize> {
        // Of a run that is done, half of the time.
        let call = self.random.random_range(1..=2 * self.known.calls);
        self.disturbed(Some(Fault::Before(call)))?;
        let files: Vec<PathBuf> = files_below(run)?
            .into_iter()
            .filter(|path| {
                !path.ends_with("lock") && fs::metadata(path).is_ok_and(|file| file.len() > 0)
            })
            .collect();
        let Some(path) = files.choose(&mut self.random) else {
            return Ok(0);
        };
        let mut bytes = fs::read(path)?;
        let bit = self.random.random_range(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, bytes)?;
        let flipped = path.strip_prefix(run)?;
        let what = format!(
            "killed at call {call}, bit {bit} of {} flipped",
            flipped.display()
        );
        self.to_its_end_after_damage().context(what.clone())?;
        let differences = self
            .known
            .whole
            .differences_but(run, flipped)
            .context(what.clone())?;
        ensure!(differences.is_empty(), "{what}: {}", differences.join("; "));
        Ok(1)
    }

    fn rival(&mut self, run: &Path) -> anyhow::Result<usize> {
        let command = self.known.setting.command(&self.name);
        let first = self.starter.start(&words(&command), &self.name)?;
        let wait = self.known.time.mul_f64(self.random.random_range(0.0..0.8));
        thread::sleep(wait);
        let second = self.starter.start(&words(&command), &self.name)?;
        let (first, second) = (ended(first)?, ended(second)?);
        let refused = [&first, &second]
            .into_iter()
            .filter(|it| it.said.contains("is being written by"))
            .count();
        let whole = [&first, &second]
            .into_iter()
            .filter(|it| it.code == Some(0))
            .count();
        ensure!(
            refused + whole == 2 && whole > 0,
            "two processes: {first:?}, {second:?}"
        );
        let differences = self.known.whole.differences(run)?;
        ensure!(
            differences.is_empty(),
            "two processes: {}",
            differences.join("; ")
        );
        Ok(refused)
    }

    fn disturbed(&self, fault: Option<Fault>) -> anyhow::Result<Ended> {
        let command = self.known.setting.command(&self.name);
        self.starter.run(&words(&command), &self.name, fault)
    }

    /// Where the last task before was lost to the damage, that is said, and it is learnt again first.
    fn to_its_end_after_damage(&self) -> anyhow::Result<()> {
        let before = self.known.setting.before(&self.name);
        let Some(mut before) = before else {
            return self.to_its_end();
        };
        let ended = self.disturbed(None)?;
        if ended.code == Some(0) {
            return Ok(());
        }
        ensure!(
            ended.said.contains("the one before it is used"),
            "it does not go on: {}",
            ended.said
        );
        before.push("--resume".into());
        let ended = self.starter.run(&words(&before), &self.name, None)?;
        ensure!(
            ended.code == Some(0),
            "it is not learnt again: {}",
            ended.said
        );
        self.to_its_end()
    }

    fn to_its_end(&self) -> anyhow::Result<()> {
        let ended = self.disturbed(None)?;
        ensure!(ended.code == Some(0), "it does not go on: {}", ended.said);
        Ok(())
    }
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files.extend(files_below(&path)?),
            false => files.push(path),
        }
    }
    files.sort();
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for path in files_below(from)? {
        let place = to.join(path.strip_prefix(from)?);
        fs::create_dir_all(place.parent().context("a file in a folder")?)?;
        fs::copy(&path, place)?;
    }
    Ok(())
}
