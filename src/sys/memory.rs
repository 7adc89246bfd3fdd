//! The process's memory: how the allocator shares it among threads, and giving back what is free or was
//! used once.
//!
//! The allocator is glibc's; with another nothing is done to it. Never decides when memory is given back.
#![allow(unsafe_code)]

use std::thread;

/// Arenas for all threads. Each holds on to free memory of its own, and is made for every thread
/// that allocates while another does: a server whose hits allocate nothing needs few.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// From this size on an allocation is a mapping of its own, which goes back when it is freed and
/// grows without a copy. Set, it stays: glibc raises it up to 32 MiB otherwise, and what a table has
/// grown out of stays in the heap.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 256 * 1024;

/// What glibc keeps of what a thread frees: so many pieces of so many lengths, of which the shortest is
/// this, in octets, and each further one longer by a step.
const KEPT_OF_EACH: usize = 7;
const KEPT_LENGTHS: usize = if cfg!(target_env = "gnu") { 64 } else { 0 };
const KEPT_SHORTEST: usize = 24;
const KEPT_STEP: usize = 16;

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

/// Free memory that the allocator kept for a thread.
#[derive(Debug)]
pub struct Spare {
    _pieces: Vec<Vec<u8>>,
}

impl Spare {
    /// Takes over what the allocator keeps for the calling thread: some hundreds of pieces, each of which may
    /// be all that keeps a page. It is as many allocations.
    pub fn of_this_thread() -> Spare {
        let mut pieces = Vec::with_capacity(KEPT_LENGTHS * KEPT_OF_EACH);
        for step in 0..KEPT_LENGTHS {
            let length = KEPT_SHORTEST + step * KEPT_STEP;
            pieces.extend((0..KEPT_OF_EACH).map(|_| Vec::with_capacity(length)));
        }
        Spare { _pieces: pieces }
    }
}

/// Gives free pages back to the system, and those of `spare` with them. Takes microseconds when there are
/// few, and some milliseconds after a storm, in which whoever allocates waits. For a thread that may
/// wait.
pub fn give_back(spare: Vec<Spare>) {
    // A thread that frees keeps the first of each length; one that has ended keeps nothing. Where the
    // system gives no thread, they are freed with what it was to do.
    let freeing = thread::Builder::new().name("freeing".to_owned()).spawn(move || drop(spare));
    let _ = freeing.map(thread::JoinHandle::join);
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes a number, and locks what it walks; it moves nothing in use.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Gives back the pages of the program and its libraries, which are the file's: those that only the
/// start needed. What is used again is mapped again, without reading the file as long as the system has
/// it. Takes some microseconds, and a few for each piece that comes back.
pub fn forget_the_start() {
    // SAFETY: the function is called with what the loader keeps for each object, and keeps nothing.
    unsafe {
        libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut());
    }
}

/// Gives back what is read alone of one loaded object.
unsafe extern "C" fn forget(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: sysconf takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // SAFETY: the loader gives a whole, valid description for as long as the call lasts.
    let object = unsafe { &*object };
    if object.dlpi_phdr.is_null() {
        return 0;
    }
    let count = usize::from(object.dlpi_phnum);
    // SAFETY: the description has that many headers.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, count) };
    for header in headers {
        // What may be written, and what the loader wrote before it forbade that, is ours and not the
        // file's: both lie in segments that are writable by their header.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = (object.dlpi_addr + header.p_vaddr) as usize & !(page as usize - 1);
        let end = (object.dlpi_addr + header.p_vaddr + header.p_memsz) as usize;
        // SAFETY: the range is a mapping of this object that nobody writes to: pages that go come back
        // from the file with the same octets. What cannot go is refused, and stays.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
    0
}

/// Resident memory of this process in octets; `None` when /proc does not say.
pub fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: sysconf takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}
