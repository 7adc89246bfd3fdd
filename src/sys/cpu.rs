//! The CPU time that this process has used.
#![allow(unsafe_code)]

use std::time::Duration;

/// CPU time of all threads of the process, its system calls included. A system call.
pub fn used() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec of ours, which the call fills in.
    let known = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } == 0;
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
        while used() == before {
            assert!(began.elapsed() < Duration::from_secs(10), "{before:?}");
        }
    }
}
