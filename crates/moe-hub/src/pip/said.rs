//! What pip says while it works: progress, and the reason of a failure.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};

use crate::error::without_secrets;

/// What pip has said so far.
#[derive(Default)]
pub(super) struct Said {
    pub(super) last: String,
    errors: Vec<String>,
    pub(super) total: Option<u64>,
}

impl Said {
    pub(super) fn note(&mut self, is_error: bool, line: String) {
        let line = line.trim().to_string();
        if line.is_empty() {
            return;
        }
        self.total = announced_size(&line).or(self.total);
        if is_error && !self.errors.contains(&line) {
            self.errors.push(line.clone());
        }
        self.last = line;
    }

    pub(super) fn what(&self) -> String {
        if self.last.is_empty() {
            "pip".into()
        } else {
            format!("pip: {}", without_secrets(&self.last))
        }
    }

    /// The reason for a failure: pip's errors, and the first warning, which tells of the connection.
    pub(super) fn failure(&self) -> String {
        let errors = self.errors.iter().filter(|line| line.starts_with("ERROR:"));
        let warning = self
            .errors
            .iter()
            .find(|line| line.starts_with("WARNING: Retrying"));
        let chosen = warning
            .into_iter()
            .chain(errors)
            .map(String::as_str)
            .collect::<Vec<_>>();
        match chosen.is_empty() {
            true => self
                .errors
                .last()
                .map_or("it gave no reason", String::as_str)
                .to_string(),
            false => chosen.join("; "),
        }
    }
}

/// The size in `Downloading x-1.0.whl (92.9 MB)`, roughly.
fn announced_size(line: &str) -> Option<u64> {
    let inner = line
        .strip_prefix("Downloading ")?
        .rsplit_once('(')?
        .1
        .strip_suffix(')')?;
    let (number, unit) = inner.split_once(' ')?;
    let scale = match unit {
        "bytes" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * scale) as u64)
}

/// The lines of both outputs as they come; the flag marks standard error.
pub(super) fn lines_of(child: &mut Child) -> Receiver<(bool, String)> {
    let (sender, receiver) = mpsc::channel();
    let outputs: [(bool, Option<Box<dyn Read + Send>>); 2] = [
        (
            false,
            child
                .stdout
                .take()
                .map(|output| Box::new(output) as Box<dyn Read + Send>),
        ),
        (
            true,
            child
                .stderr
                .take()
                .map(|output| Box::new(output) as Box<dyn Read + Send>),
        ),
    ];
    for (is_error, output) in outputs {
        let sender = sender.clone();
        let Some(output) = output else { continue };
        std::thread::spawn(move || {
            for line in BufReader::new(output)
                .split(b'\n')
                .map_while(std::result::Result::ok)
            {
                if sender
                    .send((is_error, String::from_utf8_lossy(&line).into_owned()))
                    .is_err()
                {
                    break;
                }
            }
        });
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_what_pip_says() {
        assert_eq!(
            announced_size("Downloading a-1.whl (92.9 MB)"),
            Some(92_900_000)
        );
        assert_eq!(
            announced_size("Downloading a-1.whl.metadata (1 kB)"),
            Some(1000)
        );
        assert_eq!(announced_size("Collecting a==1"), None);
    }
}
