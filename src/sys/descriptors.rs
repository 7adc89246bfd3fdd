//! How many descriptors the process may have open.
#![allow(unsafe_code)]

/// How many descriptors the process may have open at once; `None` where the kernel does not say.
pub fn limit() -> Option<u64> {
    known().map(|limit| limit.rlim_cur)
}

/// The limits, soft and hard.
fn known() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a whole rlimit of ours, which the call fills in.
    let is_known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    is_known.then_some(limit)
}

/// Raises the soft limit on open descriptors to the hard one, as Go's runtime does at start: each
/// client connection is a descriptor, and the usual soft limit of 1024 is below what a node's pods
/// may open. What cannot be raised stays as it is.
pub fn raise_limit() {
    let Some(mut limit) = known() else { return };
    if limit.rlim_cur >= limit.rlim_max {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a whole rlimit of ours, which the call only reads.
    unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}
