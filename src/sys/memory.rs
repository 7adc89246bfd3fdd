//! The allocator's memory: how it is shared among threads, and giving back what is free.
//!
//! glibc's alone; elsewhere nothing is done. Never decides when memory is given back.
#![allow(unsafe_code)]

/// Arenas for all threads. Each holds on to free memory of its own, and is made for every thread
/// that allocates while another does: a server whose hits allocate nothing needs few.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// From this size on an allocation is a mapping of its own, which goes back when it is freed and
/// grows without a copy. Set, it stays: glibc raises it up to 32 MiB otherwise, and what a table has
/// grown out of stays in the heap.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 256 * 1024;

/// Sets the allocator up. For the start of the process, before there are threads.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes two numbers and touches nothing of ours; no other thread is there.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        }
        // SAFETY: as above.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        }
    }
}

/// Gives free pages back to the system. Takes microseconds when there are few, and some
/// milliseconds after a storm, in which whoever allocates waits.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes a number, and locks what it walks; it moves nothing in use.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Resident memory of this process in octets; `None` when /proc does not say.
pub fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: sysconf takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_goes_back() {
        let Some(before) = resident() else { panic!("/proc/self/statm is missing") };
        // Small ones, so that they stand in the heap, with a last one above that keeps it from
        // shrinking by itself.
        let mut many: Vec<Vec<u8>> = (0..64 * 1024).map(|_| vec![1; 1024]).collect();
        let last = many.pop();
        let most = resident().unwrap_or(0);
        assert!(most > before + (48 << 20), "{before} to {most}");
        drop(many);
        give_back();
        let after = resident().unwrap_or(u64::MAX);
        assert!(after + (32 << 20) < most, "{most} to {after}");
        drop(last);
    }
}
