//! Signals before the runtime listens for them.
#![allow(unsafe_code)]

/// Signals whose default is to end the process, and which Go's runtime lets pass: those that mean
/// something here until a handler stands, the others for ever.
const IGNORED: [libc::c_int; 10] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// Ignores what would end the process and says nothing about it, real-time signals but the first
/// among them. Call it first in `main`: a reload signal that comes before the handlers stand must not
/// kill the node's DNS.
pub fn ignore_until_handled() {
    for signal in IGNORED.into_iter().chain(libc::SIGRTMIN() + 1..=libc::SIGRTMAX()) {
        // SAFETY: SIG_IGN is a valid disposition for these signals and runs no code of ours.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}
