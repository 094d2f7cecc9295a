//! Threads that wait for the next loop with open eyes.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread looks out for the next loop before it goes to sleep: longer than the work of one thread between most loops of a
/// training step.
const PATIENCE: Duration = Duration::from_millis(1);

/// Loops that have begun.
static LOOPS: AtomicUsize = AtomicUsize::new(0);
/// Threads that look out, or have been asked to.
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// Says that a loop begins: until some time after it, rayon's threads are not to sleep.
///
/// A step has a thousand loops. Rayon puts a thread to sleep some microseconds after its last task, and to wake it takes several times
/// as long, more so on a virtual machine.
pub(crate) fn keep_awake() {
    LOOPS.fetch_add(1, Ordering::Relaxed);
    let others = rayon::current_num_threads() - 1;
    let asked = WATCHERS.load(Ordering::Relaxed) == 0
        && others > 0
        && WATCHERS
            .compare_exchange(0, others, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
    if asked {
        // Without a place among them, the caller sleeps while they work, and the first of them takes its part.
        let caller = rayon::current_thread_index().unwrap_or(0);
        rayon::spawn_broadcast(move |thread| {
            if thread.index() != caller {
                watch();
            }
        });
    }
}

/// Works on what there is to do until nothing has begun for a while.
fn watch() {
    let (mut loops, mut since) = (LOOPS.load(Ordering::Relaxed), Instant::now());
    while since.elapsed() < PATIENCE {
        let worked = rayon::yield_now() == Some(rayon::Yield::Executed);
        let begun = LOOPS.load(Ordering::Relaxed);
        if worked || begun != loops {
            (loops, since) = (begun, Instant::now());
        }
        spin_loop();
    }
    WATCHERS.fetch_sub(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_go_to_sleep_once_nothing_begins_any_more() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build();
        let pool = pool.unwrap();
        for _ in 0..3 {
            pool.install(keep_awake);
            let start = Instant::now();
            // Other tests of this process have loops too.
            while WATCHERS.load(Ordering::Relaxed) > 0 {
                assert!(start.elapsed() < Duration::from_secs(60), "still awake");
                std::thread::sleep(PATIENCE);
            }
        }
    }
}
