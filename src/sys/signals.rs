//! Signals before the runtime listens for them.
#![allow(unsafe_code)]

/// Ignores SIGHUP, SIGUSR1 and SIGUSR2, whose default is to end the process. Call it first in
/// `main`: a reload signal that comes before the handlers stand must not kill the node's DNS.
pub fn ignore_until_handled() {
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: SIG_IGN is a valid disposition for these signals and runs no code of ours.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}
