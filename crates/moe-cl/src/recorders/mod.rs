//! What takes note of a run: a log that can be read back, TensorBoard files, and burn-train's dashboard.

mod dashboard;
mod json_log;
mod scalar;
mod tensorboard;

use std::io;

pub use dashboard::Dashboard;
pub use json_log::{JsonLog, Logged, read_log};
pub use tensorboard::TensorBoard;

use crate::events::{Event, Recorder};

/// Every recorder of the list takes note, in order; the first error ends the run.
impl Recorder for Vec<Box<dyn Recorder + '_>> {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        self.iter_mut()
            .try_for_each(|recorder| recorder.record(event))
    }
}
