//! `events.jsonl`: what happened, one JSON object a line, and `times.jsonl` beside it: when, and how long it took.
//!
//! The same run writes the same events, byte for byte; whatever differs from one time to the next is in the other file.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use moe_core::plain_file;

use super::backwards::LinesBackwards;
use crate::{
    checked,
    directory::Progress,
    events::{Event, Recorder, now},
};

/// What to do about a line that cannot be read.
const NO_EVENT: &str =
    "not an event of this program's version; move the log away to begin a new one";

/// Longest log, in bytes: it is read as a whole.
const MAX_LOG: u64 = 1 << 30;

/// Fields of events that are not the same from one time to the next.
const MEASURED: [&str; 3] = ["seconds", "examples_per_second", "peak_memory"];

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Seconds since 1970-01-01 UTC; 0 where nothing says when it was.
    #[serde(default)]
    pub time: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A log as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Its events in the order in which they were written.
    pub lines: Vec<Logged>,
    /// What is to be said of lines that are damaged, and left out.
    pub passed_over: Option<String>,
}

/// A line of `times.jsonl`, with a check of itself and of the event's line.
#[derive(Debug, Serialize, Deserialize)]
struct Times {
    /// Where the line of the event ends in its file, in bytes.
    end: u64,
    /// Seconds since 1970-01-01 UTC.
    time: f64,
    /// The event's fields that are measured.
    #[serde(flatten)]
    measured: Map<String, Value>,
}

/// All that is read of a line of `times.jsonl` whose event is not at hand.
#[derive(Deserialize)]
struct End {
    end: u64,
}

/// Appends events to a file, each a whole line handed to the system before [`record`](Recorder::record) returns, so
/// that a killed process loses nothing that it had recorded.
#[derive(Debug)]
pub struct JsonLog {
    events: File,
    times: File,
    /// Length of the events.
    end: u64,
}

impl JsonLog {
    /// Begins an empty log; what the files held is gone.
    ///
    /// # Errors
    /// When a file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let create = |path: &Path| File::create(path).map_err(|error| named(path, &error));
        Ok(Self {
            times: create(&times_of(path))?,
            events: create(path)?,
            end: 0,
        })
    }

    /// Goes on with the log of a run that is resumed from the checkpoint that stands at `last`.
    ///
    /// What was logged after that checkpoint will happen again and is cut off, so that no step is there twice: every
    /// line after its `checkpoint_saved`, or, where the run was killed between saving and noting it, from the first
    /// step, score or other checkpoint beyond it on. A torn last line is cut off too. Only the lines to be cut are read, since
    /// a model's log grows for as long as it lives. A log that is missing is begun.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn resume(path: &Path, last: &Progress) -> io::Result<Self> {
        if !path.exists() {
            return Self::create(path);
        }
        let (events, end) = go_on(path, |file| end_of_past(file, last))?;
        let (times, _) = go_on(&times_of(path), |file| end_of_times(file, end))?;
        Ok(Self { events, times, end })
    }
}

/// Opens a file, which is made where it is not there, cuts off what follows the place that `past` finds, and goes there.
fn go_on(path: &Path, past: impl FnOnce(&mut File) -> io::Result<u64>) -> io::Result<(File, u64)> {
    let open = || {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true);
        let mut file = options.truncate(false).open(path)?;
        let end = past(&mut file)?;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        Ok((file, end))
    };
    open().map_err(|error| named(path, &error))
}

impl Recorder for JsonLog {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        let Value::Object(mut event) = serde_json::to_value(event)? else {
            return Err(io::Error::other("an event that is no object"));
        };
        let measured = MEASURED
            .iter()
            .filter_map(|name| event.shift_remove_entry(*name))
            .collect();
        let mut line = serde_json::to_vec(&event)?;
        let end = self.end + line.len() as u64 + 1;
        let times = Times {
            end,
            time: now(),
            measured,
        };
        let mut times = checked::to_line(&times, &line)?;
        line.push(b'\n');
        times.push(b'\n');
        // In this order, so that an event that is whole has its times.
        self.times.write_all(&times)?;
        self.events.write_all(&line)?;
        self.end = end;
        Ok(())
    }
}

/// Reads the log whose events are at `path`. A last line that is torn (the process was killed while it was written) is
/// left out, and so are lines that are not what was written, which is told. Without the file of times nothing is checked,
/// and all took no time.
///
/// # Errors
/// When a file cannot be read, or a line is not an event (named as `file:line`).
pub fn read_log(path: &Path) -> io::Result<Log> {
    let bytes = plain_file::read(path, MAX_LOG).map_err(|error| named(path, &error))?;
    let times = read_times(&times_of(path))?;
    let (mut log, mut end) = (Log::default(), 0);
    let (mut damaged, mut first) = (0, 0);
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        end += line.len() as u64;
        let Some(whole) = line.strip_suffix(b"\n") else {
            break; // a line is whole only with its end
        };
        if whole.trim_ascii().is_empty() {
            continue;
        }
        let of_line = match &times {
            None => Some(None),
            Some(times) => times
                .get(&end)
                .and_then(|times| checked::from_line::<Times>(times, whole).ok())
                .map(Some),
        };
        let Some(times) = of_line else {
            damaged += 1;
            first = if damaged == 1 { index + 1 } else { first };
            continue;
        };
        let event = join(whole, times).map_err(|error| {
            let place = format!("{}:{}", path.display(), index + 1);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{place}: {error}: {NO_EVENT}"),
            )
        })?;
        log.lines.push(event);
    }
    log.passed_over = (damaged > 0).then(|| {
        format!(
            "{}:{first}: does not match its check in times.jsonl; {damaged} such line{} left out",
            path.display(),
            if damaged == 1 { " is" } else { "s are" }
        )
    });
    Ok(log)
}

/// An event with what was measured of it.
fn join(event: &[u8], times: Option<Times>) -> serde_json::Result<Logged> {
    let mut event: Map<String, Value> = serde_json::from_slice(event)?;
    if let Some(times) = times {
        event.extend(times.measured);
        event.insert("time".into(), times.time.into());
    }
    serde_json::from_value(event.into())
}

/// The lines of `times.jsonl` by the end of their event's; none where there is no such file.
fn read_times(path: &Path) -> io::Result<Option<BTreeMap<u64, Vec<u8>>>> {
    let bytes = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        _ => plain_file::read(path, MAX_LOG).map_err(|error| named(path, &error))?,
    };
    let lines = bytes.split(|byte| *byte == b'\n');
    let by_end = |line: &[u8]| Some((end_of(line)?, line.to_vec()));
    Ok(Some(lines.filter_map(by_end).collect()))
}

/// Where the event ends that a line of `times.jsonl` is about; none where it is damaged.
fn end_of(line: &[u8]) -> Option<u64> {
    let End { end } = serde_json::from_slice(line).ok()?;
    Some(end)
}

/// The file of times beside a file of events.
fn times_of(events: &Path) -> PathBuf {
    events.with_file_name("times.jsonl")
}

/// How many bytes of a log belong to the past of the checkpoint that stands at `last`.
fn end_of_past(file: &mut File, last: &Progress) -> io::Result<u64> {
    let mut lines = LinesBackwards::new(file)?;
    let mut end = lines.begin;
    // The end of a model's session right behind its last checkpoint belongs to it.
    let mut finished = None;
    while let Some(line) = lines.next()? {
        if line.trim_ascii().is_empty() {
            continue;
        }
        // What is damaged tells nothing; whoever reads the log hears of it.
        let Ok(event) = join(&line, None).map(|logged| logged.event) else {
            continue;
        };
        let end_of_line = lines.begin + line.len() as u64 + 1;
        let followed = finished.take();
        let age = match event {
            Event::RunFinished { .. } => {
                finished = Some(end_of_line);
                continue;
            }
            Event::CheckpointSaved { step, after } => (after, step).cmp(&(last.task, last.step)),
            Event::Evaluated { after, .. } | Event::Inferred { after, .. } if after > last.task => {
                Ordering::Greater
            }
            // Whatever comes before a step that is not beyond is older still.
            Event::Step { step, .. } if step <= last.step => Ordering::Less,
            Event::Step { .. } => Ordering::Greater,
            _ => continue,
        };
        match age {
            Ordering::Less => break,
            Ordering::Equal => return Ok(followed.unwrap_or(end_of_line)),
            Ordering::Greater => end = lines.begin,
        }
    }
    Ok(end)
}

/// How many bytes of the times belong to the events before `past`.
fn end_of_times(file: &mut File, past: u64) -> io::Result<u64> {
    let mut lines = LinesBackwards::new(file)?;
    while let Some(line) = lines.next()? {
        if end_of(&line).is_some_and(|end| end <= past) {
            return Ok(lines.begin + line.len() as u64 + 1);
        }
    }
    Ok(0)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn step(step: usize) -> Event {
        Event::Step {
            task: 0,
            step,
            loss: 0.5,
            figures: [("adversary/accuracy".to_owned(), 0.25)].into(),
            learning_rate: 1e-3,
            gradient_norm: 1.5,
            real_tokens: 100,
            balance: Vec::new(),
            seconds: 0.1,
        }
    }

    /// The place of a checkpoint after some steps and some tasks.
    fn at((step, task): (usize, usize)) -> Progress {
        Progress {
            task,
            step,
            ..Progress::default()
        }
    }

    fn saved(step: usize, after: usize) -> Event {
        Event::CheckpointSaved { step, after }
    }

    fn evaluated(after: usize) -> Event {
        let scores = vec![Some(0.5), None];
        Event::Evaluated {
            after,
            scores,
            examples_per_second: 10.0,
        }
    }

    /// A log of `events` in a directory of its own, and the events that are left after `resume(last_step)`.
    fn left_after_resume(events: &[Event], torn: &str, last: (usize, usize)) -> Vec<Event> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut log = JsonLog::create(&path).unwrap();
        events.iter().for_each(|event| log.record(event).unwrap());
        log.events.write_all(torn.as_bytes()).unwrap();
        let mut log = JsonLog::resume(&path, &at(last)).unwrap();
        log.record(&step(last.0 + 1)).unwrap();
        let log = read_log(&path).unwrap();
        assert_eq!(log.passed_over, None);
        log.lines.into_iter().map(|line| line.event).collect()
    }

    #[test]
    fn resume_drops_exactly_what_follows_the_checkpoint() {
        let events = [
            evaluated(0),
            step(1),
            step(2),
            saved(2, 0),
            step(3),
            saved(3, 0),
            step(4),
            evaluated(1),
        ];
        let mut expected = events[..4].to_vec();
        expected.push(step(3));
        assert_eq!(left_after_resume(&events, "", (2, 0)), expected);
    }

    #[test]
    fn checkpoints_of_the_same_step_are_told_apart() {
        let events = [
            step(1),
            evaluated(1),
            saved(1, 1),
            evaluated(2),
            saved(1, 2),
            evaluated(3),
        ];
        for (last, kept) in [((1, 0), 1), ((1, 1), 3), ((1, 2), 5), ((1, 3), 6)] {
            let mut expected = events[..kept].to_vec();
            expected.push(step(2));
            assert_eq!(left_after_resume(&events, "", last), expected, "{last:?}");
        }
    }

    #[test]
    fn resume_keeps_what_happened_before_a_checkpoint_that_was_not_noted() {
        let events = [step(1), step(2), evaluated(1), step(3), evaluated(2)];
        let expected = [step(1), step(2), evaluated(1), step(3)];
        assert_eq!(left_after_resume(&events, "", (2, 1)), expected);
    }

    #[test]
    fn a_torn_last_line_is_dropped() {
        let expected = [step(1), step(2)];
        assert_eq!(
            left_after_resume(&[step(1)], "{\"time\":1.0,\"eve", (1, 0)),
            expected
        );
    }

    #[test]
    fn a_broken_line_in_the_middle_is_refused_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        fs::write(
            &path,
            "{\"time\":1,\"event\":\"checkpoint_saved\",\"step\":1}\nnonsense\n",
        )
        .unwrap();
        let error = read_log(&path).unwrap_err().to_string();
        assert!(error.contains("events.jsonl:2: "), "{error}");
    }

    #[test]
    fn a_number_that_is_none_survives_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut event = step(1);
        if let Event::Step {
            gradient_norm,
            figures,
            ..
        } = &mut event
        {
            *gradient_norm = f64::INFINITY;
            figures.insert("adversary/loss".into(), f64::NAN);
        }
        let layers = Event::LayerFigures {
            task: 0,
            name: "gate/own".into(),
            first: 0,
            layers: vec![0.5, f64::NAN],
        };
        let mut log = JsonLog::create(&path).unwrap();
        log.record(&event).unwrap();
        log.record(&layers).unwrap();
        let read = read_log(&path).unwrap().lines;
        let Event::Step {
            gradient_norm,
            figures,
            ..
        } = &read[0].event
        else {
            panic!("a step was logged")
        };
        assert!(gradient_norm.is_nan() && figures["adversary/loss"].is_nan());
        assert_eq!(figures["adversary/accuracy"], 0.25);
        let Event::LayerFigures { layers, .. } = &read[1].event else {
            panic!("figures of layers were logged")
        };
        assert!(layers[0] == 0.5 && layers[1].is_nan());
    }

    #[test]
    fn what_was_inferred_survives_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let scores = crate::metrics::Inferred {
            accuracies: vec![Some(0.5), None],
            confusion: vec![[(0, 3), (1, 2)].into(), [(1, 4)].into()],
            refused: vec![1, 0],
            open_set_auroc: None,
        };
        let event = Event::Inferred { after: 2, scores };
        JsonLog::create(&path).unwrap().record(&event).unwrap();
        assert_eq!(read_log(&path).unwrap().lines[0].event, event);
    }

    /// The bytes of both files of a log of these steps.
    fn written(folder: &Path, steps: usize) -> [PathBuf; 2] {
        let path = folder.join("events.jsonl");
        let mut log = JsonLog::create(&path).unwrap();
        (1..=steps).for_each(|it| log.record(&step(it)).unwrap());
        [times_of(&path), path]
    }

    #[test]
    fn the_same_events_are_the_same_bytes_and_the_rest_is_in_the_times() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [first, second] = folders.each_ref().map(|it| written(it.path(), 2));
        assert_eq!(fs::read(&first[1]).unwrap(), fs::read(&second[1]).unwrap());
        assert_ne!(fs::read(&first[0]).unwrap(), fs::read(&second[0]).unwrap());
        let log = read_log(&first[1]).unwrap();
        assert!(log.lines[0].time > 1e9 && log.lines[0].event == step(1));
        // Events alone are read as well.
        fs::remove_file(&first[0]).unwrap();
        let Event::Step { seconds, step, .. } = read_log(&first[1]).unwrap().lines[1].event else {
            panic!("a step")
        };
        assert_eq!((seconds, step), (0.0, 2));
    }

    #[test]
    fn no_bit_changes_a_log_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let files = written(folder.path(), 2);
        let whole = read_log(&files[1]).unwrap();
        for file in &files {
            let bytes = fs::read(file).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(file, &flipped).unwrap();
                let read = read_log(&files[1]).unwrap();
                // What has lost its end looks like what a killed process was writing.
                let torn = bit / 8 == bytes.len() - 1;
                assert!(
                    read == whole || read.passed_over.is_some() || torn,
                    "{}, bit {bit}: {read:?}",
                    file.display()
                );
                assert!(read.lines.iter().all(|line| whole.lines.contains(line)));
            }
            fs::write(file, &bytes).unwrap();
        }
    }

    #[test]
    fn a_kill_between_the_two_files_is_healed() {
        let folder = tempfile::tempdir().unwrap();
        let [times, events] = written(folder.path(), 3);
        let bytes = fs::read(&events).unwrap();
        fs::write(&events, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(read_log(&events).unwrap().lines.len(), 2);
        let mut log = JsonLog::resume(&events, &at((2, 0))).unwrap();
        log.record(&step(3)).unwrap();
        assert_eq!(fs::read(&events).unwrap(), bytes);
        let read = read_log(&events).unwrap();
        assert_eq!((read.lines.len(), read.passed_over), (3, None));
        assert_eq!(fs::read_to_string(&times).unwrap().lines().count(), 3);
    }
}
