//! A run in a process of its own: its memory is its own, and whatever ends it ends nothing else.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use moe_cl::{
    Base,
    config::{Experiment, Split},
    events::{Event, Recorder},
    training::{self, RunOptions, Trained},
};
use moe_core::device::DeviceChoice;
use moe_hub::{BaseSource, Cache, fetch_default, smollm2};
use moe_report::TensorBoard;

use super::{
    ability::{self, Abilities},
    stage::stage,
    stripping::{self, Course, strip},
};

/// Trains `experiment` in `folder` by starting this program again as its [`child`]; a run that was broken off goes on.
///
/// # Errors
/// When the child cannot be started, or fails: then in its own words.
pub fn train(experiment: &Experiment, folder: &Path, with_stripping: bool) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child").arg(folder);
    if with_stripping {
        command.arg("--stripping");
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("the run cannot be started")?;
    // Dropped at the end of the statement, which ends the child's input.
    child
        .stdin
        .take()
        .context("no way to the run")?
        .write_all(experiment.to_toml().as_bytes())?;
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().context("no way from the run")?).lines() {
        let line = line?;
        eprintln!("  {line}");
        if !line.trim().is_empty() {
            said = line;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{status}: {said}");
    }
    Ok(())
}

/// The other end of [`train`]: reads the experiment from standard input and trains it in `folder`.
///
/// # Errors
/// Whatever stops the run.
pub fn child(folder: &Path, with_stripping: bool) -> anyhow::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let experiment = Experiment::parse(&text, &folder.join("config.toml"), &[])?;
    let device = experiment.device.parse::<DeviceChoice>()?.open()?;
    let mut base = Base::load_as(
        &fetch(&experiment.base.source)?,
        experiment.base.dtype,
        &device,
    )?;
    base.keep_trunk(&experiment, &Cache::open()?.trunks());
    let options = RunOptions::new(folder.into(), true);
    let board = TensorBoard::new(folder.join("tensorboard"));
    let mut recorders: Vec<Box<dyn Recorder>> = vec![Box::new(board), Box::new(Lines)];
    training::train(&experiment, &base, &options, &mut recorders)?;
    let path = folder.join(ability::FILE);
    if !path.is_file() {
        let abilities = Abilities::measure(folder, &base)?;
        moe_core::atomic::write_file(&path, &serde_json::to_vec(&abilities)?)?;
    }
    if with_stripping {
        let courses = courses(folder, experiment.tasks.len(), &base)?;
        let path = folder.join(stripping::FILE);
        moe_core::atomic::write_file(&path, &serde_json::to_vec(&courses)?)?;
    }
    Ok(())
}

/// The local path of a base.
///
/// # Errors
/// When it cannot be had.
pub fn fetch(source: &str) -> anyhow::Result<PathBuf> {
    let source: BaseSource = source.parse()?;
    let (cache, mut silent) = (Cache::open()?, |_| ());
    Ok(if source == smollm2() {
        fetch_default(&cache, &mut silent)?.1
    } else {
        source.fetch(&cache, &mut silent)?
    })
}

/// The stripping rates of each of `tasks` tasks before and after it was learnt and at the end, from the checkpoints between tasks.
fn courses(folder: &Path, tasks: usize, base: &Base) -> anyhow::Result<Vec<Course>> {
    let measure = |after: usize, task: usize| -> anyhow::Result<_> {
        let saved = stage(folder, after)?;
        let saved = saved
            .with_context(|| format!("{}: no checkpoint after task {after}", folder.display()))?;
        let trained = Trained::open(&saved.path, base)?;
        let scored = |split| trained.distributions(task, split);
        Ok(strip(&scored(Split::Dev)?, &scored(Split::Test)?))
    };
    (0..tasks)
        .map(|task| {
            let after = measure(task + 1, task)?;
            Ok(Course {
                before: measure(task, task)?,
                after,
                end: if task + 1 == tasks {
                    after
                } else {
                    measure(tasks, task)?
                },
            })
        })
        .collect()
}

/// Says on standard error how far the run is.
struct Lines;

impl Recorder for Lines {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        let share = |score: &Option<f64>| score.map_or("–".into(), |score| format!("{score:.3}"));
        match event {
            Event::TaskStarted { name, steps, .. } => eprintln!("learning {name}, {steps} steps"),
            Event::Evaluated { after, scores, .. } => {
                let scores: Vec<String> = scores.iter().map(share).collect();
                eprintln!("after {after} tasks: {}", scores.join(" "));
            }
            Event::Inferred { scores, .. } => eprintln!(
                "task inferred: {}, sent to the right task {}",
                share(&scores.avg_acc()),
                share(&scores.routing_accuracy())
            ),
            Event::Warning { message } => eprintln!("warning: {message}"),
            _ => {}
        }
        Ok(())
    }
}
