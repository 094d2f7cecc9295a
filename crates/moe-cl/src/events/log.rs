//! `events.jsonl`: what happened, one JSON object a line, each with the wall-clock time at which it was written.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use moe_core::plain_file;

use crate::events::{Event, Recorder, now};

/// What to do about a line that cannot be read.
const NO_EVENT: &str =
    "not an event of this program's version; move the log away to begin a new one";

/// Bytes that are read at least at a time from the end of a log.
const BLOCK: u64 = 1 << 16;

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
    /// What was logged after that checkpoint will happen again and is cut off, so that no step is there twice: every
    /// line after the last `checkpoint_saved` of that step, or, where the run was killed between saving and noting
    /// it, from the first step beyond it on. A torn last line is cut off too. Only the lines to be cut are read, since
    /// a model's log grows for as long as it lives. A log that is missing is begun.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a line on the way back to the checkpoint is not an event.
    pub fn resume(path: &Path, last_step: usize) -> io::Result<Self> {
        if !path.exists() {
            return Self::create(path);
        }
        let open = || {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            let end = end_of_past(&mut file, last_step)?;
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            Ok(file)
        };
        open()
            .map(|file| Self { file })
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
    let bytes = plain_file::read(path, MAX_LOG).map_err(|error| named(path, &error))?;
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
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{place}: {error}: {NO_EVENT}"),
            )
        })?;
        events.push(event);
    }
    Ok(events)
}

/// Longest log, in bytes: it is read as a whole.
const MAX_LOG: u64 = 1 << 30;

/// How many bytes of a log belong to the past of the checkpoint of `last_step`.
fn end_of_past(file: &mut File, last_step: usize) -> io::Result<u64> {
    let mut lines = LinesBackwards::new(file)?;
    let mut end = lines.begin;
    // The end of a model's session right behind its last checkpoint belongs to it.
    let mut finished = None;
    while let Some(line) = lines.next()? {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Logged { event, .. } = serde_json::from_slice(&line).map_err(|error| {
            let problem = format!("byte {}: {error}: {NO_EVENT}", lines.begin);
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?;
        let after = lines.begin + line.len() as u64 + 1;
        let followed = finished.take();
        match event {
            Event::CheckpointSaved { step } if step == last_step => {
                return Ok(followed.unwrap_or(after));
            }
            Event::RunFinished { .. } => finished = Some(after),
            Event::Step { step, .. } | Event::CheckpointSaved { step } if step > last_step => {
                end = lines.begin;
            }
            // Whatever comes before it is older still.
            Event::Step { .. } => break,
            _ => {}
        }
    }
    Ok(end)
}

/// The whole lines of a file from the last to the first, read in blocks.
struct LinesBackwards<'a> {
    file: &'a mut File,
    /// Where the line that was given last begins; at first, where the last whole line ends.
    begin: u64,
    /// What has been read of the bytes before `begin`.
    read: Vec<u8>,
}

impl<'a> LinesBackwards<'a> {
    fn new(file: &'a mut File) -> io::Result<Self> {
        let begin = file.seek(SeekFrom::End(0))?;
        let mut lines = Self {
            file,
            begin,
            read: Vec::new(),
        };
        // A line is whole only with its end: what follows the last one is torn.
        let torn = lines.last_line()?.len();
        lines.begin -= torn as u64;
        lines.read.truncate(lines.read.len() - torn);
        Ok(lines)
    }

    /// The next line towards the beginning, without its end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.begin == 0 {
            return Ok(None);
        }
        self.read.pop();
        self.begin -= 1;
        let line = self.last_line()?.to_vec();
        self.begin -= line.len() as u64;
        self.read.truncate(self.read.len() - line.len());
        Ok(Some(line))
    }

    /// What stands before `begin` and after the line end before that.
    fn last_line(&mut self) -> io::Result<&[u8]> {
        let unread = |lines: &Self| lines.begin - lines.read.len() as u64;
        while !self.read.contains(&b'\n') && unread(self) > 0 {
            let block = unread(self).min((self.read.len() as u64).max(BLOCK));
            self.file.seek(SeekFrom::Start(unread(self) - block))?;
            let mut bytes = vec![0; block as usize];
            self.file.read_exact(&mut bytes)?;
            bytes.append(&mut self.read);
            self.read = bytes;
        }
        let end_before = self.read.iter().rposition(|byte| *byte == b'\n');
        Ok(&self.read[end_before.map_or(0, |end| end + 1)..])
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
    fn lines_come_backwards_whole_whatever_the_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let long = "x".repeat(BLOCK as usize * 3 + 7);
        fs::write(&path, format!("first\n{long}\n\nlast\ntorn")).unwrap();
        let mut file = File::open(&path).unwrap();
        let mut lines = LinesBackwards::new(&mut file).unwrap();
        for want in ["last", "", &long, "first"] {
            let line = lines.next().unwrap().unwrap();
            assert!(line == want.as_bytes(), "{} bytes", line.len());
        }
        assert_eq!((lines.next().unwrap(), lines.begin), (None, 0));
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
        let read = read_log(&path).unwrap();
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
        assert_eq!(read_log(&path).unwrap()[0].event, event);
    }
}
