//! Descriptors that whoever started this process left open for it, from number 3 on (sd_listen_fds(3)).
//!
//! Owns the step from a number to a descriptor. Never looks at what they are.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The number of the first one: below are input, output and errors.
pub const FIRST: RawFd = 3;

/// What tells a process of them; not for the programs that it starts.
pub const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Takes `count` of them, each closed on exec from now on. The error of a number says why there is none:
/// `NotFound` when it is not open, or was opened by this process itself. Doing it again finds none.
pub fn take(count: usize) -> Vec<io::Result<OwnedFd>> {
    (FIRST..).take(count).map(take_one).collect()
}

fn take_one(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: reads the flags of a number, which need not be open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the number is open, and was so before this program began: what it opens itself, as all of
    // Rust's libraries do, is closed on exec, and that one is not. So nobody here owns it, and from the
    // next line on it is told from what has an owner.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    set_flags(&owned, flags | libc::FD_CLOEXEC)?;
    Ok(owned)
}

/// Has a program that this process starts inherit it under the same number.
///
/// # Errors
///
/// The kernel's.
pub fn pass_on(descriptor: &OwnedFd) -> io::Result<()> {
    set_flags(descriptor, 0)
}

fn set_flags(descriptor: &OwnedFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: sets the flags of a descriptor that is open for as long as it is borrowed.
    match unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_this_process_opened_itself_is_never_taken() {
        let own = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = take_one(own.as_raw_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(own.local_addr().is_ok());
    }

    #[test]
    fn one_that_was_left_open_is_taken_once_and_closed_on_exec() {
        let left = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        pass_on(&left).unwrap();
        // As if it had come over an exec, where no owner comes with it.
        let number = std::os::fd::IntoRawFd::into_raw_fd(left);
        let taken = take_one(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(take_one(number).is_err());
        assert!(UdpSocket::from(taken).local_addr().is_ok());
    }

    #[test]
    fn a_number_that_is_not_open_is_none() {
        for number in [1 << 20, RawFd::MAX] {
            assert_eq!(take_one(number).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
