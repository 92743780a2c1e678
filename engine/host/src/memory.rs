//! What this process holds of memory: PID 1 should have little of it, at rest least of all.

/// Lets all threads take memory from one place. By default glibc gives each its own, and what a thread that has ended had used stays
/// resident; threads that are few and short wait for each other hardly ever. See mallopt(3), `M_ARENA_MAX`.
///
/// To be called before the second thread begins.
pub fn share() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(
            unsafe_code,
            reason = "mallopt(3) takes two numbers and changes how the allocator works, not what it gave"
        )]
        // SAFETY: no memory is touched; the function may be called at any time.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Gives the pages back to the kernel on which nothing is left. It takes less than a millisecond for a few MiB. See malloc_trim(3).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(
            unsafe_code,
            reason = "malloc_trim(3) takes a number, and gives back what nobody has"
        )]
        // SAFETY: only memory that is free is given back; the function is safe with threads.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
