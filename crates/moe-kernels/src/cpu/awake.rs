//! Threads that wait for the next loop with open eyes.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread looks out for the next loop before it goes to sleep: longer than the work of one thread between most loops of a
/// training step.
const PATIENCE: Duration = Duration::from_millis(1);

/// What is counted of the threads of one pool: a program may have several, whose loops say nothing of each other.
#[derive(Debug, Default)]
struct Pool {
    /// Loops that have begun.
    loops: AtomicUsize,
    /// Threads that look out, or have been asked to.
    watchers: AtomicUsize,
}

/// Rayon's own, which serves those who are in no pool.
static GLOBAL: Pool = Pool {
    loops: AtomicUsize::new(0),
    watchers: AtomicUsize::new(0),
};

thread_local! {
    /// The pool that a thread works in, once it has been told.
    static MINE: Cell<Option<&'static Pool>> = const { Cell::new(None) };
}

impl Pool {
    /// The one whose threads take the caller's loops.
    fn current() -> &'static Self {
        if rayon::current_thread_index().is_none() {
            return &GLOBAL;
        }
        // Rayon's pools have no names. The first thread to ask makes one, and tells the others as soon as it asks them to watch; it is
        // never given back, and small.
        MINE.get().unwrap_or_else(|| {
            let pool = Box::leak(Box::default());
            MINE.set(Some(pool));
            pool
        })
    }

    /// Works on what there is to do until nothing has begun for a while.
    fn watch(&self) {
        let (mut loops, mut since) = (self.loops.load(Ordering::Relaxed), Instant::now());
        while since.elapsed() < PATIENCE {
            let worked = rayon::yield_now() == Some(rayon::Yield::Executed);
            let begun = self.loops.load(Ordering::Relaxed);
            if worked || begun != loops {
                (loops, since) = (begun, Instant::now());
            }
            spin_loop();
        }
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says that a loop begins: until some time after it, the pool's threads are not to sleep.
///
/// A step has a thousand loops. Rayon puts a thread to sleep some microseconds after its last task, and to wake it takes several times
/// as long, more so on a virtual machine.
pub(crate) fn keep_awake() {
    let pool = Pool::current();
    pool.loops.fetch_add(1, Ordering::Relaxed);
    let others = rayon::current_num_threads() - 1;
    let asked = pool.watchers.load(Ordering::Relaxed) == 0
        && others > 0
        && pool
            .watchers
            .compare_exchange(0, others, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
    if asked {
        // Without a place among them, the caller sleeps while they work, and the first of them takes its part.
        let caller = rayon::current_thread_index().unwrap_or(0);
        rayon::spawn_broadcast(move |thread| {
            MINE.set(Some(pool));
            if thread.index() != caller {
                pool.watch();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_go_to_sleep_once_nothing_begins_any_more_each_pool_for_itself() {
        let pool = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(3)
                .build()
                .unwrap()
        };
        let (one, other) = (pool(), pool());
        let count = |pool: &rayon::ThreadPool| {
            pool.broadcast(|_| {
                let mine = MINE.get();
                mine.map_or(0, |it| it.watchers.load(Ordering::Relaxed))
            })
        };
        for _ in 0..3 {
            one.install(keep_awake);
            assert_eq!(count(&other), [0; 3]);
            let start = Instant::now();
            while count(&one).into_iter().any(|watchers| watchers > 0) {
                assert!(start.elapsed() < Duration::from_secs(60), "still awake");
                std::thread::sleep(PATIENCE);
            }
        }
        // Every thread of a pool has learnt of the same one.
        let pools = one.broadcast(|_| MINE.get());
        let is_one = |pool: &Option<&Pool>| {
            pool.is_some_and(|it| pools[0].is_some_and(|one| std::ptr::eq(it, one)))
        };
        assert!(pools.iter().all(is_one));
    }
}
