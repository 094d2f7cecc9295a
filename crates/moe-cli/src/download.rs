//! Shows how far a download is: a bar on a terminal, now and then a line otherwise.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use moe_hub::Progress;

use crate::terminal::{harmless, tell};

const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// A display of downloads on standard error, gone when dropped.
pub struct DownloadDisplay {
    bar: Option<ProgressBar>,
    shown: Option<(String, Instant)>,
}

impl DownloadDisplay {
    /// A display that stays invisible until something is fetched.
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(ProgressBar::new_spinner);
        Self { bar, shown: None }
    }

    /// Takes note of the state of a download.
    pub fn show(&mut self, progress: &Progress) {
        match &self.bar {
            Some(bar) => {
                bar.set_style(style(progress));
                bar.set_message(harmless(&progress.what).into_owned());
                bar.set_length(progress.total.unwrap_or(0));
                bar.set_position(progress.done);
                bar.tick();
            }
            None => self.line(progress),
        }
    }

    /// A line when something new begins, and then every few seconds.
    fn line(&mut self, progress: &Progress) {
        let due = |(what, at): &(String, Instant)| {
            *what != progress.what || at.elapsed() >= BETWEEN_LINES
        };
        if self.shown.as_ref().is_none_or(due) && !progress.what.is_empty() {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            match (progress.done, progress.total) {
                (0, _) => tell!("{}", progress.what),
                (done, Some(total)) => {
                    tell!(
                        "{}: {:.0} of {:.0} MB",
                        progress.what,
                        megabytes(done),
                        megabytes(total)
                    );
                }
                (done, None) => tell!("{}: {:.0} MB", progress.what, megabytes(done)),
            }
            self.shown = Some((progress.what.clone(), Instant::now()));
        }
    }
}

impl Drop for DownloadDisplay {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(progress: &Progress) -> ProgressStyle {
    let template = match (progress.done, progress.total) {
        (0, _) => "{spinner} {wide_msg}",
        (_, Some(_)) => "{wide_msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}",
        (_, None) => "{spinner} {wide_msg} {bytes} {bytes_per_sec}",
    };
    ProgressStyle::with_template(template).expect("the templates above are well formed")
}
