//! The system calls that serving takes, and those of the programs of iptables.
//!
//! Owns the lists. They come from traces of the tests (`docs/development.md` says how), with the other
//! ways of the C libraries to the same end: glibc and musl, of older and newer kernels. What is not
//! here: tracing and reading others' memory, mounts, namespaces, modules, keys, BPF, io_uring, changing
//! users, and sockets of families that nobody asked for.

use super::Programs;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use std::collections::BTreeMap;

/// What serving takes, on every processor.
const SERVING: &[libc::c_long] = &[
    // Descriptors: read, write, wait.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_memfd_create,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // Files: the Corefile, what it names, the kept cache, the runtime directory.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    libc::SYS_umask,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Signals, also those of the profile's timer; children that must end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Sockets; `socket` itself is looked at more closely below.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // What a process asks of itself and its machine.
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    // The end of a process that was started before the filter.
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// The older calls for the same, which only this processor has.
#[cfg(target_arch = "x86_64")]
const SERVING_HERE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_chmod,
    libc::SYS_rmdir,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_time,
    libc::SYS_getrlimit,
    libc::SYS_arch_prctl,
];

#[cfg(not(target_arch = "x86_64"))]
const SERVING_HERE: &[libc::c_long] = &[];

/// What the programs of iptables take beside that: to be started, and as scripts, which choose between
/// them on some images.
const PROGRAMS: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_setpgid,
    libc::SYS_getpgid,
    libc::SYS_setsid,
    libc::SYS_getsid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_capget,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_utimensat,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_times,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigpending,
];

#[cfg(target_arch = "x86_64")]
const PROGRAMS_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_getpgrp,
    libc::SYS_creat,
    libc::SYS_symlink,
    libc::SYS_link,
    libc::SYS_alarm,
];

#[cfg(not(target_arch = "x86_64"))]
const PROGRAMS_HERE: &[libc::c_long] = &[];

/// The families of sockets: of paths and names, of both internet protocols, and netlink's.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// What may be asked of prctl(2): names of threads and of memory, and what a start asks.
const PRCTL: &[libc::c_int] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_SET_PDEATHSIG,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_DUMPABLE,
    libc::PR_CAPBSET_READ,
];

/// The flags of clone(2) that make a namespace.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// The calls that are listed, each with the arguments that it may have; any when there are none.
pub(super) fn rules(programs: Programs) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut lists = vec![SERVING, SERVING_HERE];
    if programs == Programs::Firewall {
        lists.extend([PROGRAMS, PROGRAMS_HERE]);
    }
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        lists.concat().into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, first_argument_of(FAMILIES)?);
    rules.insert(libc::SYS_prctl, first_argument_of(PRCTL)?);
    let in_no_namespace = SeccompCmpOp::MaskedEq(NAMESPACES as u32 as u64);
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, in_no_namespace, 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![condition])?]);
    Ok(rules)
}

fn first_argument_of(values: &[libc::c_int]) -> Result<Vec<SeccompRule>, BackendError> {
    let rules = values.iter().map(|&value| {
        let (length, is) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        SeccompRule::new(vec![SeccompCondition::new(0, length, is, value as u32 as u64)?])
    });
    rules.collect()
}
