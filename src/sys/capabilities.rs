//! Capabilities: what this process may do beyond its user's rights, and giving them up in all threads.
//!
//! Owns one real-time signal: the kernel lets a thread change its own capabilities alone, so each is
//! interrupted once and gives up its own. Nothing that was given up comes back, to no thread and to no
//! program that is started (`no_new_privs`).
#![allow(unsafe_code)]

use caps::CapSet;
pub use caps::Capability;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Which real-time signal, counted from the first that is free for programs.
const SIGNAL: libc::c_int = 7;

/// The longest that all threads together may take. Each needs to run once, on a node that may be busy.
const LONGEST: Duration = Duration::from_secs(5);

/// The time between two looks at the threads.
const LOOK: Duration = Duration::from_millis(1);

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: two words a set.
const VERSION: u32 = 0x2008_0522;

/// What is kept, a bit for each capability; read by the threads that are interrupted.
static KEPT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Nobody waits any more: a thread that is interrupted this late does nothing. A filter of system calls may
/// stand by then, which ends a process for trying to change its capabilities.
static IS_TOO_LATE: AtomicBool = AtomicBool::new(false);

#[repr(C)]
struct Header {
    version: u32,
    thread: i32,
}

/// One word of each set.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whether this thread has a capability, be it in use or not.
pub fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Permitted, capability).unwrap_or(false)
}

/// Lets programs that are started from here on have these capabilities, as far as this thread has
/// them: those of the superuser do by themselves. For the start of the process, before there are
/// threads that start programs.
pub fn hand_on(capabilities: &[Capability]) {
    for capability in capabilities.iter().copied().filter(|one| has(*one)) {
        // Refused where the administrator locked it: then programs fail, and are told of.
        let _ = caps::raise(None, CapSet::Inheritable, capability)
            .and_then(|()| caps::raise(None, CapSet::Ambient, capability));
    }
}

/// Gives up all capabilities but `kept`, and with them whatever a program that is started might add
/// to them, in every thread. Blocks for some milliseconds, five seconds at most. The error says that some
/// thread could not be seen, or did not do it in time and keeps what it has; others may have.
pub fn keep_only(kept: &[Capability]) -> io::Result<()> {
    let mask = kept.iter().fold(0, |mask, capability| mask | capability.bitmask());
    KEPT.store(mask, Ordering::Release);
    IS_TOO_LATE.store(false, Ordering::Release);
    let done = tell_all(mask);
    IS_TOO_LATE.store(done.is_err(), Ordering::Release);
    done
}

/// Interrupts every thread once, and waits until none has more than is in `mask`.
fn tell_all(mask: u64) -> io::Result<()> {
    let signal = libc::SIGRTMIN() + SIGNAL;
    answer_to(signal)?;
    let process = libc::pid_t::try_from(std::process::id()).map_err(io::Error::other)?;
    let end = Instant::now() + LONGEST;
    let mut told = HashSet::new();
    let mut clean_looks = 0;
    // A thread that started another while it was told is gone from sight by the second look.
    while clean_looks < 2 {
        let left = threads_with_more_than(mask)?;
        if left.is_empty() {
            clean_looks += 1;
            continue;
        }
        clean_looks = 0;
        if Instant::now() >= end {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} threads did not do it in time", left.len()),
            ));
        }
        for thread in left.into_iter().filter(|thread| told.insert(*thread)) {
            // SAFETY: tgkill takes three numbers. The signal's handler stands, and a thread that has
            // ended meanwhile is an error that needs no answer.
            unsafe {
                libc::syscall(libc::SYS_tgkill, process, thread, signal);
            }
        }
        sleep(LOOK);
    }
    Ok(())
}

/// From now on the signal makes whoever gets it give up what is not kept. The handler stays: a signal
/// that is late must not end the process, which is what it does by default.
fn answer_to(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = give_up as *const () as libc::sighandler_t;
    // What it interrupts goes on where it can.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the action is whole, its handler has the signature of one without SA_SIGINFO and does
    // nothing but system calls; no old action is asked for.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The handler: runs on the thread that is interrupted, wherever it was. Allocates nothing, locks
/// nothing, leaves errno as it was.
extern "C" fn give_up(_signal: libc::c_int) {
    if IS_TOO_LATE.load(Ordering::Acquire) {
        return;
    }
    // SAFETY: the address of this thread's own errno, for as long as the thread lives.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; it is an int of ours.
    let before = unsafe { *errno };
    reduce(KEPT.load(Ordering::Acquire));
    // SAFETY: as above.
    unsafe {
        *errno = before;
    }
}

/// This thread's part. What fails shows in the thread's sets, which [`keep_only`] looks at.
fn reduce(mask: u64) {
    let header = Header { version: VERSION, thread: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: the header is whole and names this thread and the version with two words, and the
    // kernel fills in exactly those two.
    let known = unsafe { libc::syscall(libc::SYS_capget, &raw const header, words.as_mut_ptr()) };
    if known != 0 {
        return;
    }
    for (word, kept) in words.iter_mut().zip([mask as u32, (mask >> 32) as u32]) {
        word.effective &= kept;
        word.permitted &= kept;
        word.inheritable &= kept;
    }
    // SAFETY: as above; the kernel only reads the two words.
    unsafe {
        libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr());
    }
    // Last: it is what [`keep_only`] waits for in a thread that had no more than is kept.
    // SAFETY: prctl takes numbers alone here.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1u64, 0u64, 0u64, 0u64);
    }
}

/// The threads that still have more, or whose programs may get more.
fn threads_with_more_than(mask: u64) -> io::Result<Vec<libc::pid_t>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/task")? {
        let entry = entry?;
        // One that has ended since has nothing any more.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number
            && has_more_than(mask, &status)
        {
            found.push(number);
        }
    }
    Ok(found)
}

/// Whether a thread with this text in `/proc` has more, or may get more.
fn has_more_than(mask: u64, status: &str) -> bool {
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let set = |name| field(name).and_then(|text| u64::from_str_radix(text, 16).ok());
    let has_all = |name| set(name).is_none_or(|set| set & !mask != 0);
    has_all("CapPrm") || has_all("CapInh") || field("NoNewPrivs") == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_judged_by_its_sets() {
        let status = |inheritable: &str, permitted: &str, flag: &str| {
            format!("Name:\tx\nCapInh:\t{inheritable}\nCapPrm:\t{permitted}\nNoNewPrivs:\t{flag}\n")
        };
        let mask = Capability::CAP_NET_ADMIN.bitmask() | Capability::CAP_NET_RAW.bitmask();
        for (inheritable, permitted, flag, has_more) in [
            ("0000000000000000", "0000000000003000", "1", false),
            ("0000000000001000", "0000000000001000", "1", false),
            ("0000000000000000", "0000000000000000", "1", false),
            ("0000000000000000", "0000000000003400", "1", true),
            ("000001ffffffffff", "0000000000003000", "1", true),
            ("0000000000000000", "0000000000003000", "0", true),
        ] {
            let text = status(inheritable, permitted, flag);
            assert_eq!(has_more_than(mask, &text), has_more, "{text}");
        }
        // What cannot be read is not taken for good.
        assert!(has_more_than(mask, ""));
    }

    #[test]
    fn a_thread_that_is_interrupted_too_late_does_nothing() {
        // Each in a thread of its own: what it gives up goes with it.
        let flag_of_another = |interrupted: bool| {
            let thread = std::thread::spawn(move || {
                if interrupted {
                    give_up(0);
                }
                let status = fs::read_to_string("/proc/thread-self/status").unwrap();
                let line = status.lines().find(|line| line.starts_with("NoNewPrivs:"));
                line.unwrap().to_owned()
            });
            thread.join().unwrap()
        };
        let before = flag_of_another(false);
        IS_TOO_LATE.store(true, Ordering::Release);
        assert_eq!(flag_of_another(true), before);
        IS_TOO_LATE.store(false, Ordering::Release);
        assert_eq!(flag_of_another(true), "NoNewPrivs:\t1");
    }

    #[test]
    fn a_capability_that_nobody_has_is_not_had() {
        // This process keeps what it was started with: other tests need it.
        let all = caps::read(None, CapSet::Permitted).unwrap();
        assert_eq!(has(Capability::CAP_NET_ADMIN), all.contains(&Capability::CAP_NET_ADMIN));
    }
}
