//! Progress of a transfer, from the threads that make it to the one that shows it.

use std::sync::mpsc::{Receiver, Sender};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};

use crate::progress::Progress;

/// (bytes so far, bytes in all where known); the first message of a transfer has no bytes yet.
pub(super) struct Relay(pub(super) Sender<(u64, Option<u64>)>);

impl ProgressHandler for Relay {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else {
            return;
        };
        let message = match event {
            DownloadEvent::Start { total_bytes, .. } => Some((0, *total_bytes)),
            DownloadEvent::Progress { files } => files
                .last()
                .map(|file| (file.bytes_completed, file.total_bytes)),
            DownloadEvent::AggregateProgress {
                bytes_completed,
                total_bytes,
                ..
            } => Some((*bytes_completed, *total_bytes)),
            DownloadEvent::Complete => None,
        };
        if let Some((done, total)) = message {
            // Nobody listens any more only when the transfer is over.
            let _ = self.0.send((done, (total > 0).then_some(total)));
        }
    }
}

/// Passes messages on until the transfer ends; returns the file's size.
pub(super) fn report(
    receiver: &Receiver<(u64, Option<u64>)>,
    what: &str,
    progress: &mut dyn FnMut(Progress),
) -> Option<u64> {
    let mut size = None;
    for (done, total) in receiver {
        size = size.or(total);
        progress(Progress {
            what: what.into(),
            done,
            total,
        });
    }
    size
}
