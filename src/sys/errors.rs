//! What a system's error number means for a caller that goes on.

use std::io;

/// True when the process or the system is out of descriptors or memory: waiting helps, trying
/// again at once does not.
pub fn is_exhausted(error: &io::Error) -> bool {
    let spent = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|number| spent.contains(&number))
}
