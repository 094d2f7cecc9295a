//! Those who watch a run from the command line: none of them can end it by failing.

use std::io;
use std::path::Path;

use anyhow::Result;
use moe_cl::events::{Event, Recorder};
use moe_report::{Dashboard, TensorBoard};

use crate::progress::ProgressDisplay;
use crate::signals::Signals;
use crate::terminal::tell;

/// TensorBoard and a display for people. One that fails is let go, which is said once, and the run goes on without it.
pub struct Watchers {
    watching: Vec<(&'static str, Box<dyn Recorder>)>,
    signals: Signals,
}

impl Watchers {
    /// Those of a run in `out`, which `signals` stop, on a dashboard or with a progress display.
    ///
    /// # Errors
    /// When there is no terminal for a dashboard.
    pub fn new(out: &Path, tui: bool, signals: &Signals) -> Result<Self> {
        let display: Box<dyn Recorder> = match tui {
            true => Box::new(Dashboard::terminal()?),
            false => Box::new(ProgressDisplay::new()),
        };
        let board: Box<dyn Recorder> = Box::new(TensorBoard::new(out.join("tensorboard")));
        Ok(Self {
            watching: vec![("TensorBoard", board), ("the display", display)],
            signals: signals.clone(),
        })
    }

    /// Says that a watcher is let go to those that stay, or else on standard error.
    fn let_go(&mut self, name: &str, error: &io::Error) {
        let message = format!("{name}: {error}; the run goes on without it");
        if name == "the display" {
            // Its standard error may be what is gone.
            tell!("warning: {message}");
        }
        let warning = Event::Warning { message };
        for (_, watcher) in &mut self.watching {
            // Whoever fails now fails at the next event as well.
            let _ = watcher.record(&warning);
        }
    }
}

impl Recorder for Watchers {
    /// # Errors
    /// Where a signal or a watcher asks the run to stop.
    fn record(&mut self, event: &Event) -> io::Result<()> {
        let between = matches!(event, Event::Step { .. } | Event::EvaluationStep { .. });
        let mut stop = between && self.signals.came();
        let mut failed = Vec::new();
        self.watching
            .retain_mut(|(name, watcher)| match watcher.record(event) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    stop = true;
                    true
                }
                Err(error) => {
                    failed.push((*name, error));
                    false
                }
            });
        for (name, error) in failed {
            self.let_go(name, &error);
        }
        match stop {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Keeps warnings, or fails.
    struct Watcher(Option<io::ErrorKind>, Rc<RefCell<Vec<String>>>);

    impl Recorder for Watcher {
        fn record(&mut self, event: &Event) -> io::Result<()> {
            if let Event::Warning { message } = event {
                self.1.borrow_mut().push(message.clone());
            }
            self.0.map_or(Ok(()), |kind| Err(kind.into()))
        }
    }

    fn watched_by(kinds: [Option<io::ErrorKind>; 2]) -> (Watchers, Rc<RefCell<Vec<String>>>) {
        let said = Rc::new(RefCell::new(Vec::new()));
        let watcher = |kind| -> Box<dyn Recorder> { Box::new(Watcher(kind, Rc::clone(&said))) };
        let [board, display] = kinds.map(watcher);
        let watching = vec![("TensorBoard", board), ("the display", display)];
        let signals = Signals::default();
        (Watchers { watching, signals }, said)
    }

    #[test]
    fn a_watcher_that_fails_is_let_go_and_said_once() {
        let full = Some(io::ErrorKind::StorageFull);
        let (mut watchers, said) = watched_by([full, None]);
        for done in 0..3 {
            watchers.record(&Event::EvaluationStep { done }).unwrap();
        }
        let said = said.borrow();
        assert!(
            said.len() == 1 && said[0].contains("TensorBoard"),
            "{said:?}"
        );

        let (mut watchers, _) = watched_by([full, full]);
        for done in 0..3 {
            watchers.record(&Event::EvaluationStep { done }).unwrap();
        }
        assert!(watchers.watching.is_empty());
    }

    #[test]
    fn a_watcher_can_ask_the_run_to_stop() {
        let (mut watchers, said) = watched_by([None, Some(io::ErrorKind::Interrupted)]);
        let error = watchers.record(&Event::EvaluationStep { done: 1 });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(said.borrow().is_empty());
    }
}
