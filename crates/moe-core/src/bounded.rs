//! Work of foreign code on foreign input: its panics, its endless loops and its deep recursions are errors of ours.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It took longer than it may. Its thread is left behind.
    Time,
    /// It panicked.
    Panic,
    /// The system gives no thread.
    Thread(std::io::Error),
}

/// Does `work` on a stack of so many bytes, for at most `time`.
///
/// # Errors
/// Where it does not come to an end of its own.
pub(crate) fn run<T: Send + 'static>(
    stack: usize,
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = channel();
    let run = move || {
        // Whoever asked may be gone.
        let _ = sender.send(work());
    };
    let spawned = thread::Builder::new().stack_size(stack).spawn(run);
    spawned.map_err(Failure::Thread)?;
    receiver.recv_timeout(time).map_err(|error| match error {
        RecvTimeoutError::Timeout => Failure::Time,
        RecvTimeoutError::Disconnected => Failure::Panic,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_well_is_told_apart() {
        let time = Duration::from_millis(50);
        assert_eq!(run(1 << 16, Duration::from_secs(60), || 7).unwrap(), 7);
        let panicked = run(1 << 16, Duration::from_secs(60), || {
            panic!("expected by a test")
        });
        assert!(matches!(panicked, Err::<(), _>(Failure::Panic)));
        let late = run(1 << 16, time, || thread::sleep(Duration::from_secs(2)));
        assert!(matches!(late, Err(Failure::Time)));
    }
}
