//! What the C library does with freed memory.

/// Keeps freed memory in the process, to be used again. Call it first thing in `main`.
///
/// By default glibc maps every large tensor anew and gives it back when it is freed, so that each step pays for its page faults
/// again: an evaluation of 32 texts takes nearly twice as long. The peak stays what it is. Does nothing on other platforms.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const TOP_PAD: i32 = 64 << 20;
        let settings = [
            (libc::M_MMAP_MAX, 0),
            (libc::M_TRIM_THRESHOLD, i32::MAX),
            (libc::M_TOP_PAD, TOP_PAD),
        ];
        for (setting, value) in settings {
            // SAFETY: mallopt takes two integers and sets a parameter of the allocator; it touches no memory of ours.
            unsafe { libc::mallopt(setting, value) };
        }
    }
}
