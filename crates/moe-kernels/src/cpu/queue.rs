//! Tasks for all threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::awake::keep_awake;

/// Runs `work` on every task of `0..tasks`. A thread that is done with one takes the first that nobody has, so that none waits while
/// there is work; each has room of its own, made once.
///
/// Cutting the range into halves, as rayon does by itself, leaves a thread idle for up to a quarter of the tasks: a tenth of a
/// training step.
pub(crate) fn for_each_task<R>(
    tasks: usize,
    room: impl Fn() -> R + Sync,
    work: impl Fn(&mut R, usize) + Sync,
) {
    on_all_threads(tasks, |take| {
        let Some(first) = take() else { return };
        let mut room = room();
        work(&mut room, first);
        while let Some(task) = take() {
            work(&mut room, task);
        }
    });
}

/// Runs `work` on all threads at once, or on as many as there are tasks: it takes tasks of `0..tasks` in turn, each of which nobody else
/// gets, and may take one before it is done with another.
pub(crate) fn on_all_threads(tasks: usize, work: impl Fn(&dyn Fn() -> Option<usize>) + Sync) {
    let next = AtomicUsize::new(0);
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&task| task < tasks);
    let threads = rayon::current_num_threads().min(tasks);
    if threads > 1 {
        keep_awake();
    }
    (0..threads)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|_| work(&take));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_task_runs_once() {
        for tasks in [0, 1, 2, 1000] {
            let seen = Mutex::new(Vec::new());
            for_each_task(
                tasks,
                || 0,
                |done: &mut usize, task| {
                    *done += 1;
                    seen.lock().unwrap().push((task, *done));
                },
            );
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert!(seen.iter().map(|(task, _)| *task).eq(0..tasks));
            // Each thread counts its own from one.
            let rooms = seen.iter().filter(|(_, done)| *done == 1).count();
            assert!(rooms <= rayon::current_num_threads());
        }
    }
}
