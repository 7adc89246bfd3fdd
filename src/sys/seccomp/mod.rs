//! The filter of system calls: what the process, its threads and the programs that it starts may ask
//! of the kernel from now on (seccomp(2)).
//!
//! Owns the compiled filter and its installing; `calls` has the lists. What is set cannot be taken
//! back. A call that is not listed fails with ENOSYS, as on a kernel that does not have it: libraries
//! then take the older way, and a list that lacks a call costs that call and not the process.
#![allow(unsafe_code)]

mod calls;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};
use std::io;

/// What becomes of a call that is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// It fails with ENOSYS; the kernel's log has a line (`type=1326`) where auditing is on.
    Refused,
    /// The process is killed by SIGSYS: for finding out what a list lacks.
    Deadly,
}

/// Whether the process is to start programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// None: execve is not listed.
    None,
    /// Those of iptables, whose own calls are listed too.
    Firewall,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// There are no lists for this processor.
    #[error("there is no list of system calls for {0}")]
    Processor(&'static str),
    /// The lists do not make a filter.
    #[error("the list of system calls is wrong: {0}")]
    List(#[from] seccompiler::BackendError),
    /// The kernel or the container's own filter refuses it.
    #[error("the kernel refuses it: {0}")]
    Refused(io::Error),
    /// A thread has a filter of its own.
    #[error("thread {0} has a filter of its own")]
    Thread(i64),
}

/// Sets the filter for all threads; gives how many system calls it lists. `no_new_privs` is set with
/// it. After an error no call is refused that was not before, but for clone3.
pub fn install(programs: Programs, unlisted: Unlisted) -> Result<usize, Missing> {
    let filters = Filters::compile(programs, unlisted)?;
    // SAFETY: prctl takes numbers alone here.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1u64, 0u64, 0u64, 0u64) } != 0 {
        return Err(Missing::Refused(io::Error::last_os_error()));
    }
    // Refused at each start of a thread or program: nothing for the kernel's log.
    set(&filters.without_clone3, 0)?;
    set(&filters.listed, libc::SECCOMP_FILTER_FLAG_LOG)?;
    Ok(filters.count)
}

/// Two filters, for a filter has one answer to all that it refuses.
struct Filters {
    /// Refuses clone3 and nothing else: its flags are in memory, where a filter cannot look. Libraries
    /// then take clone.
    without_clone3: BpfProgram,
    /// Refuses what is not listed.
    listed: BpfProgram,
    /// How many calls are listed.
    count: usize,
}

impl Filters {
    fn compile(programs: Programs, unlisted: Unlisted) -> Result<Filters, Missing> {
        let processor = std::env::consts::ARCH;
        let target = TargetArch::try_from(processor).map_err(|_| Missing::Processor(processor))?;
        let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
        let clone3 = [(libc::SYS_clone3, Vec::new())].into();
        let without_clone3 =
            SeccompFilter::new(clone3, SeccompAction::Allow, no_such_call.clone(), target)?;
        let mut rules = calls::rules(programs)?;
        let count = rules.len();
        rules.insert(libc::SYS_clone3, Vec::new());
        let mismatch = match unlisted {
            Unlisted::Refused => no_such_call,
            Unlisted::Deadly => SeccompAction::KillProcess,
        };
        let listed = SeccompFilter::new(rules, mismatch, SeccompAction::Allow, target)?;
        Ok(Filters {
            without_clone3: without_clone3.try_into()?,
            listed: listed.try_into()?,
            count,
        })
    }
}

/// `sock_fprog` of linux/filter.h.
#[repr(C)]
struct Program {
    length: libc::c_ushort,
    instructions: *const sock_filter,
}

/// Sets a filter for all threads, with more flags where the kernel knows them.
fn set(filter: &[sock_filter], flags: libc::c_ulong) -> Result<(), Missing> {
    // The speculation that a filter turns off on older kernels costs every query, and is about code
    // of others in this process, which there is not.
    let flags = flags | libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    match set_with(filter, flags) {
        Err(Missing::Refused(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
            set_with(filter, libc::SECCOMP_FILTER_FLAG_TSYNC)
        }
        result => result,
    }
}

/// The crate sets no flags but the one for all threads, so the call is made here.
fn set_with(filter: &[sock_filter], flags: libc::c_ulong) -> Result<(), Missing> {
    let length = libc::c_ushort::try_from(filter.len())
        .map_err(|error| Missing::Refused(io::Error::other(error)))?;
    let program = Program { length, instructions: filter.as_ptr() };
    // SAFETY: the program is whole, points to `length` instructions that live until the call ends,
    // and the kernel copies them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    match result {
        0 => Ok(()),
        thread if thread > 0 => Err(Missing::Thread(thread)),
        _ => Err(Missing::Refused(io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_need_more_calls_and_both_lists_fit_the_kernel() {
        let none = Filters::compile(Programs::None, Unlisted::Refused).unwrap();
        let all = Filters::compile(Programs::Firewall, Unlisted::Deadly).unwrap();
        assert!(none.count > 80 && all.count > none.count, "{}, {}", none.count, all.count);
        // BPF_MAXINSNS of the kernel.
        assert!(none.listed.len() < all.listed.len() && all.listed.len() < 4096);
    }
}
