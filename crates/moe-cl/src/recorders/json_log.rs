//! `events.jsonl`: what happened, one JSON object a line, each with the wall-clock time at which it was written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use moe_core::atomic;
use serde::{Deserialize, Serialize};

use crate::events::{Event, Recorder};

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Seconds since 1970-01-01 UTC.
    pub time: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Appends events to a file, each a whole line handed to the system before [`record`](Recorder::record) returns, so
/// that a killed process loses nothing that it had recorded.
#[derive(Debug)]
pub struct JsonLog {
    file: File,
}

impl JsonLog {
    /// Begins an empty log; what the file held is gone.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path).map_err(|error| named(path, &error))?;
        Ok(Self { file })
    }

    /// Goes on with the log of a run that is resumed from the checkpoint of `last_step`.
    ///
    /// What was logged after that checkpoint will happen again and is dropped, so that no step is there twice: every
    /// line after the last `checkpoint_saved` of that step, or, where the run was killed between saving and noting
    /// it, from the first step beyond it on. The file is replaced in one piece; a torn last line is dropped too. A log
    /// that is missing is begun.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a line other than the last is not an event.
    pub fn resume(path: &Path, last_step: usize) -> io::Result<Self> {
        if !path.exists() {
            return Self::create(path);
        }
        let lines = read_log(path)?;
        let mut kept = Vec::new();
        for line in &lines[..lines_before(&lines, last_step)] {
            write_line(&mut kept, line)?;
        }
        atomic::write_file(path, &kept).map_err(|error| named(path, &error))?;
        let file = OpenOptions::new().append(true).open(path);
        file.map(|file| Self { file })
            .map_err(|error| named(path, &error))
    }
}

impl Recorder for JsonLog {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(256);
        write_line(
            &mut bytes,
            &Logged {
                time: now(),
                event: event.clone(),
            },
        )?;
        self.file.write_all(&bytes)
    }
}

/// The events of a log in the order in which they were written. A last line that is torn (the process was killed while
/// it was written) is left out.
///
/// # Errors
/// When the file cannot be read, or a line other than the last is not an event (named as `file:line`).
pub fn read_log(path: &Path) -> io::Result<Vec<Logged>> {
    let bytes = fs::read(path).map_err(|error| named(path, &error))?;
    let mut events = Vec::new();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(whole) = line.strip_suffix(b"\n") else {
            break; // a line is whole only with its end
        };
        if whole.trim_ascii().is_empty() {
            continue;
        }
        let event = serde_json::from_slice(whole).map_err(|error| {
            let place = format!("{}:{}", path.display(), index + 1);
            let advice =
                "not an event of this program's version; move the log away to begin a new one";
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{place}: {error}: {advice}"),
            )
        })?;
        events.push(event);
    }
    Ok(events)
}

/// How many lines of a log belong to the past of the checkpoint of `last_step`.
fn lines_before(lines: &[Logged], last_step: usize) -> usize {
    let noted =
        |line: &Logged| matches!(line.event, Event::CheckpointSaved { step } if step == last_step);
    let beyond = |line: &Logged| matches!(line.event, Event::Step { step, .. } | Event::CheckpointSaved { step } if step > last_step);
    match lines.iter().rposition(noted) {
        Some(checkpoint) => checkpoint + 1,
        None => lines.iter().position(beyond).unwrap_or(lines.len()),
    }
}

fn write_line(bytes: &mut Vec<u8>, line: &Logged) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, line)?;
    bytes.push(b'\n');
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Seconds since 1970-01-01 UTC; 0 on a machine whose clock stands before that.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |duration| duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize) -> Event {
        Event::Step {
            task: 0,
            step,
            loss: 0.5,
            discriminator_loss: None,
            discriminator_accuracy: Some(0.25),
            learning_rate: 1e-3,
            gradient_norm: 1.5,
            real_tokens: 100,
            seconds: 0.1,
        }
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
    fn left_after_resume(events: &[Event], torn: &str, last_step: usize) -> Vec<Event> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut log = JsonLog::create(&path).unwrap();
        events.iter().for_each(|event| log.record(event).unwrap());
        log.file.write_all(torn.as_bytes()).unwrap();
        let mut log = JsonLog::resume(&path, last_step).unwrap();
        log.record(&step(last_step + 1)).unwrap();
        read_log(&path)
            .unwrap()
            .into_iter()
            .map(|line| line.event)
            .collect()
    }

    #[test]
    fn resume_drops_exactly_what_follows_the_checkpoint() {
        let saved = |step| Event::CheckpointSaved { step };
        let events = [
            evaluated(0),
            step(1),
            step(2),
            saved(2),
            step(3),
            saved(3),
            step(4),
            evaluated(1),
        ];
        let mut expected = events[..4].to_vec();
        expected.push(step(3));
        assert_eq!(left_after_resume(&events, "", 2), expected);
    }

    #[test]
    fn resume_keeps_what_happened_before_a_checkpoint_that_was_not_noted() {
        let events = [step(1), step(2), evaluated(1), step(3), evaluated(2)];
        let expected = [step(1), step(2), evaluated(1), step(3)];
        assert_eq!(left_after_resume(&events, "", 2), expected);
    }

    #[test]
    fn a_torn_last_line_is_dropped() {
        let expected = [step(1), step(2)];
        assert_eq!(
            left_after_resume(&[step(1)], "{\"time\":1.0,\"eve", 1),
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
        if let Event::Step { gradient_norm, .. } = &mut event {
            *gradient_norm = f64::INFINITY;
        }
        JsonLog::create(&path).unwrap().record(&event).unwrap();
        let Event::Step { gradient_norm, .. } = read_log(&path).unwrap()[0].event else {
            panic!("a step was logged")
        };
        assert!(gradient_norm.is_nan());
    }
}
