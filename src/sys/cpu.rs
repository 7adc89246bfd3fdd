//! The CPU time that this process has used, or a thread of it.
#![allow(unsafe_code)]

use std::time::Duration;

/// CPU time of all threads of the process, its system calls included. A system call.
pub fn used() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of this thread. A system call.
pub fn used_by_this_thread() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// What a clock reads; zero where there is none.
pub(super) fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec of ours, which the call fills in.
    let known = unsafe { libc::clock_gettime(clock, &raw mut time) } == 0;
    if !known {
        return Duration::ZERO;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_is_counted() {
        let before = used();
        let began = Instant::now();
        let before_here = used_by_this_thread();
        while used() == before || used_by_this_thread() == before_here {
            assert!(began.elapsed() < Duration::from_secs(10), "{before:?}");
        }
    }
}
