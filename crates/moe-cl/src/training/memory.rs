//! How much memory a run took.

use std::fs;

/// The largest resident memory since a moment in the life of this process.
#[derive(Clone, Copy, Debug)]
pub struct PeakMemory {
    /// Whether the system began to count anew at that moment.
    counted: bool,
}

impl PeakMemory {
    /// Begins to count, for the process as a whole: one run at a time can be measured.
    pub fn begin() -> Self {
        let counted = fs::write("/proc/self/clear_refs", "5").is_ok();
        Self { counted }
    }

    /// Bytes; none where the platform does not tell, or counts the whole life of the process, which may have been that of other runs.
    pub fn bytes(self) -> Option<u64> {
        self.counted.then(peak_memory).flatten()
    }
}

/// Largest resident memory of this process in bytes, where the platform tells.
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_before_does_not_count() {
        let large = std::hint::black_box(vec![1u8; 256 << 20]);
        let before = peak_memory();
        drop(large);
        if let (Some(before), Some(after)) = (before, PeakMemory::begin().bytes()) {
            assert!(after + (128 << 20) < before, "{after} of {before}");
        }
    }
}
