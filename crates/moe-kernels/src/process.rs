//! What a program does before anything else, so that the kernels run at their speed.

/// Sets up memory and threads for large tensors. Call it first thing in `main`, on the thread that will train or evaluate.
///
/// - **Freed memory stays in the process**, to be used again. By default glibc maps every large tensor anew and gives it back when
///   it is freed, so that each step pays for its page faults again: an evaluation of 32 texts takes nearly twice as long. The peak
///   stays what it is. Does nothing on other platforms.
/// - **The calling thread is one of rayon's.** By default it would put every product into the hands of others, sleep, and be woken
///   again: a thousand times in a training step. Does nothing where rayon's threads run already.
///   With a single thread for rayon (`RAYON_NUM_THREADS=1`) the caller must not wait for another thread that uses rayon: it would
///   wait for the caller.
pub fn set_up_process() {
    keep_freed_memory();
    // An error says that the pool is there, made by someone who wants it otherwise.
    let _ = rayon::ThreadPoolBuilder::new()
        .use_current_thread()
        .build_global();
}

fn keep_freed_memory() {
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
