//! What the system says of processes while they run: memory, and who else uses the processor. Linux tells; elsewhere there is nothing.

use std::fs;

/// Starts the peak of a process anew from what it holds now.
pub fn reset_peak_memory(process: u32) {
    // Where that is not allowed, the peak of its whole life is reported.
    let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
}

/// Largest resident memory of a process in bytes.
pub fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}

/// Processor time so far, in the system's ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// All processors, idle time included.
    total: u64,
    /// All processors at work.
    busy: u64,
    /// The processes that are watched.
    own: u64,
}

impl Load {
    /// Of now, watching these processes.
    pub fn now(processes: &[u32]) -> Option<Self> {
        let (total, busy) = machine(&fs::read_to_string("/proc/stat").ok()?)?;
        let mut own = 0;
        for id in processes {
            own += process(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?;
        }
        Some(Self { total, busy, own })
    }

    /// CPUs that processes which are not watched used since `before`.
    pub fn others_since(self, before: Self) -> f64 {
        let cpus = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
        let wall = self.total.saturating_sub(before.total) as f64 / cpus;
        let busy = self.busy.saturating_sub(before.busy) as f64;
        let own = self.own.saturating_sub(before.own) as f64;
        ((busy - own) / wall.max(1.0)).max(0.0)
    }
}

/// Ticks in all and at work from `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn machine(stat: &str) -> Option<(u64, u64)> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let total = ticks.iter().sum::<u64>();
    Some((total, total - ticks.get(3)? - ticks.get(4)?))
}

/// User and system ticks from `/proc/PID/stat`, after a name that may hold anything.
fn process(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_lines_are_read() {
        assert_eq!(machine("cpu  10 1 4 50 5 0 2 3\ncpu0 1"), Some((75, 20)));
        let line = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0";
        assert_eq!(process(line), Some(42));
        assert_eq!(machine(""), None);
    }

    #[test]
    fn what_others_used_is_what_the_watched_did_not() {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
        let before = Load {
            total: 0,
            busy: 0,
            own: 0,
        };
        let after = Load {
            total: 100 * cpus,
            busy: 90,
            own: 40,
        };
        assert!((after.others_since(before) - 0.5).abs() < 1e-9);
    }
}
