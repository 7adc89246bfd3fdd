//! How many descriptors the process may have open.
#![allow(unsafe_code)]

/// Raises the soft limit on open descriptors to the hard one, as Go's runtime does at start: each
/// client connection is a descriptor, and the usual soft limit of 1024 is below what a node's pods
/// may open. What cannot be raised stays as it is.
pub fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a whole rlimit of ours, which the call fills in.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    if !known || limit.rlim_cur >= limit.rlim_max {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a whole rlimit of ours, which the call only reads.
    unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}
