//! TensorBoard event files: TFRecord frames around protobuf messages, of which five fields are all that scalars need.
//!
//! Messages (tensorflow/core/util/event.proto, framework/summary.proto): `Event { double wall_time = 1; int64 step = 2;
//! string file_version = 3; Summary summary = 5; SessionLog session_log = 7 }`, `Summary { repeated Value value = 1 }`,
//! `Value { string tag = 1; float simple_value = 2 }`, `SessionLog { SessionStatus status = 1 }` with `START = 1`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use moe_cl::{
    events::{Event, LayerBalance, Recorder, mean_balance},
    metrics::AccuracyMatrix,
};

/// Writes the scalars of a run as `events.out.tfevents.*` for TensorBoard.
///
/// Tags: `train/loss`, `train/learning_rate`, `train/gradient_norm`, `train/tokens_per_second`, the method's own figures by their
/// names, `eval/<task>`, `eval/average`, `inferred/…` (no task given), `balance/<figure>/layer_NN` and `balance/<figure>/<task>` for the experts of a sparse base, and `<name>/layer_NN` for what the method says of the NN-th adapted
/// layer, all over optimiser steps.
///
/// Every start of a run begins a new file, since event files are only ever appended to. Its first record tells TensorBoard from which
/// step on the run begins (anew, or after a stop), upon which it forgets the later steps of the earlier files.
#[derive(Debug)]
pub struct TensorBoard {
    directory: PathBuf,
    /// Of the run at hand; none before one has started.
    file: Option<File>,
    tasks: Vec<String>,
    matrix: AccuracyMatrix,
    step: usize,
}

impl TensorBoard {
    /// Event files in `directory`, which is created when a run starts.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            file: None,
            tasks: Vec::new(),
            matrix: AccuracyMatrix::default(),
            step: 0,
        }
    }

    /// Begins the file of a run that goes on after `last_step`.
    fn begin(&mut self, last_step: usize) -> io::Result<()> {
        let mut file = next_file(&self.directory).map_err(|error| self.named(&error))?;
        let mut version = Vec::new();
        put_double(&mut version, 1, now());
        put_bytes(&mut version, 3, b"brain.Event:2");
        file.write_all(&frame(&version))?;
        let mut started = message_at(last_step + 1);
        put_bytes(&mut started, 7, &[field(1, VARINT) as u8, 1]);
        file.write_all(&frame(&started))?;
        (self.file, self.step) = (Some(file), last_step);
        Ok(())
    }

    fn scalars<'a>(&mut self, values: impl IntoIterator<Item = (&'a str, f64)>) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(()); // nothing is measured before a run has started
        };
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut message = Vec::new();
            put_bytes(&mut message, 1, tag.as_bytes());
            put_varint(&mut message, field(2, FIXED32));
            message.extend((value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &message);
        }
        let mut event = message_at(self.step);
        put_bytes(&mut event, 5, &summary);
        file.write_all(&frame(&event))
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(
            error.kind(),
            format!("{}: {error}", self.directory.display()),
        )
    }
}

/// A new event file in `directory`. TensorBoard reads the files in the order of their names: the time decides, then the count.
fn next_file(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let earlier = fs::read_dir(directory)?.count();
    let name = format!(
        "events.out.tfevents.{:010}.{earlier:04}.moe-cl",
        now() as u64
    );
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(directory.join(name))
}

/// Seconds since 1970-01-01 UTC; 0 on a machine whose clock stands before that.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |duration| duration.as_secs_f64())
}

impl Recorder for TensorBoard {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::RunStarted {
                tasks, resumed_at, ..
            } => {
                self.tasks.clone_from(tasks);
                self.begin(resumed_at.unwrap_or(0))
            }
            Event::Step {
                step,
                loss,
                figures,
                learning_rate,
                gradient_norm,
                real_tokens,
                balance,
                seconds,
                ..
            } => {
                self.step = *step;
                let rate = (*seconds > 0.0).then(|| *real_tokens as f64 / seconds);
                let values = [
                    ("train/loss", Some(*loss)),
                    ("train/learning_rate", Some(*learning_rate)),
                    ("train/gradient_norm", Some(*gradient_norm)),
                    ("train/tokens_per_second", rate),
                ];
                let figures = figures.iter().map(|(name, value)| (name.as_str(), *value));
                let balance: Vec<(String, f64)> = balance
                    .iter()
                    .flat_map(|LayerBalance { layer, figures }| {
                        let tag = move |name| format!("balance/{name}/layer_{layer:02}");
                        figures
                            .numbers()
                            .map(move |(name, value)| (tag(name), value))
                    })
                    .collect();
                let balance = balance.iter().map(|(tag, value)| (tag.as_str(), *value));
                self.scalars(
                    values
                        .into_iter()
                        .filter_map(|(tag, value)| Some((tag, value?)))
                        .chain(figures)
                        .chain(balance),
                )
            }
            Event::Evaluated { after, scores, .. } => {
                self.matrix.merge(*after, scores);
                let named = self.tasks.iter().zip(self.matrix.after(*after));
                let mut values: Vec<(String, f64)> = named
                    .filter_map(|(task, score)| Some((format!("eval/{task}"), (*score)?)))
                    .collect();
                if !values.is_empty() {
                    let sum: f64 = values.iter().map(|(_, score)| score).sum();
                    values.push(("eval/average".into(), sum / values.len() as f64));
                }
                self.scalars(values.iter().map(|(tag, value)| (tag.as_str(), *value)))
            }
            Event::Inferred { scores, .. } => {
                let values = [
                    ("inferred/average", scores.avg_acc()),
                    ("inferred/routing_accuracy", scores.routing_accuracy()),
                    ("inferred/open_set_auroc", scores.open_set_auroc),
                ];
                self.scalars(
                    values
                        .into_iter()
                        .filter_map(|(tag, value)| Some((tag, value?))),
                )
            }
            Event::LayerFigures {
                name,
                first,
                layers,
                ..
            } => {
                let layers = layers.iter().zip(*first..);
                let values: Vec<(String, f64)> = layers
                    .map(|(value, layer)| (format!("{name}/layer_{layer:02}"), *value))
                    .collect();
                self.scalars(values.iter().map(|(tag, value)| (tag.as_str(), *value)))
            }
            Event::Balance { task, layers, .. } => {
                let task = self.tasks.get(*task).map_or("?", String::as_str);
                let values: Vec<(String, f64)> = mean_balance(layers)
                    .into_iter()
                    .map(|(name, value)| (format!("{name}/{task}"), value))
                    .collect();
                self.scalars(values.iter().map(|(tag, value)| (tag.as_str(), *value)))
            }
            Event::TaskStarted { .. }
            | Event::EvaluationStarted { .. }
            | Event::EvaluationStep { .. }
            | Event::CheckpointSaved { .. }
            | Event::Warning { .. }
            | Event::RunFinished { .. } => Ok(()),
        }
    }
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Key of a protobuf field.
const fn field(number: u64, wire: u64) -> u64 {
    number << 3 | wire
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn put_bytes(message: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(message, field(number, BYTES));
    put_varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn put_double(message: &mut Vec<u8>, number: u64, value: f64) {
    put_varint(message, field(number, FIXED64));
    message.extend(value.to_le_bytes());
}

/// An `Event` of now at `step`, to which its content is still to be added.
fn message_at(step: usize) -> Vec<u8> {
    let mut message = Vec::new();
    put_double(&mut message, 1, now());
    put_varint(&mut message, field(2, VARINT));
    put_varint(&mut message, step as u64);
    message
}

/// A TFRecord: length `u64`, masked CRC of the length `u32`, data, masked CRC of the data `u32`, all little-endian.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut frame = Vec::with_capacity(data.len() + 16);
    frame.extend(length);
    frame.extend(masked_crc(&length).to_le_bytes());
    frame.extend(data);
    frame.extend(masked_crc(data).to_le_bytes());
    frame
}

/// CRC-32C, rotated and shifted by a constant so that the CRC of data that holds CRCs stays a good check.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::look;

    /// CRC-32C bit by bit, to check the frames with code that shares nothing with what wrote them.
    fn slow_crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
            })
        })
    }

    fn unmask(masked: u32) -> u32 {
        masked.wrapping_sub(0xa282_ead8).rotate_left(15)
    }

    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(unmask(number(&bytes[8..])), slow_crc(&bytes[..8]));
            let data = &bytes[12..12 + length];
            assert_eq!(unmask(number(&bytes[12 + length..])), slow_crc(data));
            records.push(data.to_vec());
            bytes = &bytes[16 + length..];
        }
        records
    }

    /// Fields of a message: number → raw value (varints and fixed ones as little-endian bytes).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (first, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(first & 0x7f) << shift;
                if first & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    let value = varint(&mut bytes);
                    found.push((key >> 3, value.to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                wire => panic!("wire type {wire}"),
            };
            found.push((key >> 3, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        found
    }

    #[test]
    fn masked_crc_of_a_known_text() {
        // CRC-32C of "123456789" is e3069283 (RFC 3720 lists the polynomial, every CRC catalogue the value).
        assert_eq!(slow_crc(b"123456789"), 0xe306_9283);
        // Rotated right by 15 bits, then a282ead8 added.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn an_independent_reader_finds_every_scalar() {
        let directory = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::new(directory.path().join("board"));
        let tasks = vec!["amazon".to_owned(), "yelp".to_owned()];
        let started = Event::RunStarted {
            name: "x".into(),
            method: "moe_cl".into(),
            seed: 0,
            tasks,
            total_steps: 400,
            resumed_at: Some(299),
        };
        let step = Event::Step {
            task: 0,
            step: 300,
            loss: 0.5,
            figures: [("adversary/accuracy".to_owned(), 0.75)].into(),
            learning_rate: 0.25,
            gradient_norm: 2.0,
            real_tokens: 64,
            balance: vec![look(8, 0.5, [4; 4])],
            seconds: 0.5,
        };
        let scores = vec![Some(0.5), None];
        let evaluated = Event::Evaluated {
            after: 1,
            scores,
            examples_per_second: 1.0,
        };
        let gates = Event::LayerFigures {
            task: 0,
            name: "gate/own".into(),
            first: 22,
            layers: vec![0.25, 0.75],
        };
        let balance = Event::Balance {
            task: 0,
            after: 1,
            layers: vec![look(8, 0.5, [4; 4]), look(9, 0.25, [8, 8, 0, 0])],
        };
        for event in [started, step, evaluated, gates, balance] {
            board.record(&event).unwrap();
        }
        let path = fs::read_dir(directory.path().join("board"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let records = records(&fs::read(path).unwrap());
        assert_eq!(fields(&records[0])[1], (3, b"brain.Event:2".to_vec()));
        assert_eq!(
            fields(&records[1])[1..],
            [(2, 300_u64.to_le_bytes().to_vec()), (7, vec![8, 1])]
        );
        let mut scalars = Vec::new();
        for record in &records[2..] {
            let event = fields(record);
            assert_eq!(event[1], (2, 300_u64.to_le_bytes().to_vec()));
            for (_, value) in fields(&event[2].1) {
                let value = fields(&value);
                let tag = String::from_utf8(value[0].1.clone()).unwrap();
                scalars.push((
                    tag,
                    f32::from_le_bytes(value[1].1.clone().try_into().unwrap()),
                ));
            }
        }
        let expected = [
            ("train/loss", 0.5),
            ("train/learning_rate", 0.25),
            ("train/gradient_norm", 2.0),
            ("train/tokens_per_second", 128.0),
            ("adversary/accuracy", 0.75),
            ("balance/load_cv_squared/layer_08", 0.5),
            ("balance/importance_cv_squared/layer_08", 0.5),
            ("balance/max_over_mean/layer_08", 2.0),
            ("balance/dropped/layer_08", 0.0),
            ("balance/dead/layer_08", 0.0),
            ("eval/amazon", 0.5),
            ("eval/average", 0.5),
            ("gate/own/layer_22", 0.25),
            ("gate/own/layer_23", 0.75),
            ("balance/dead/amazon", 1.0),
            ("balance/dropped/amazon", 0.0),
            ("balance/importance_cv_squared/amazon", 0.5),
            ("balance/load_cv_squared/amazon", 0.375),
            ("balance/max_over_mean/amazon", 2.0),
        ];
        assert_eq!(
            scalars,
            expected.map(|(tag, value)| (tag.to_owned(), value))
        );
    }
}
