//! How a command fails: one line and an exit code of sysexits.h.
//!
//! Owns the codes. Serving keeps node-cache's own (0, 1 and 2) and is not concerned.

use crate::corefile::system_error_text;
use std::io;
use std::path::Path;

/// The command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// The input is wrong (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// An input file is missing or cannot be read (`EX_NOINPUT`).
pub const NO_INPUT: u8 = 66;
/// Nobody answers (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// Something in here went wrong (`EX_SOFTWARE`).
pub const INTERNAL: u8 = 70;
/// The system refused something (`EX_OSERR`).
pub const SYSTEM: u8 = 71;
/// Output could not be written (`EX_IOERR`).
pub const IO: u8 = 74;
/// Not now: somebody is in the way (`EX_TEMPFAIL`).
pub const NOT_NOW: u8 = 75;
/// The other side does not speak as it should (`EX_PROTOCOL`).
pub const PROTOCOL: u8 = 76;
/// Not permitted (`EX_NOPERM`).
pub const NO_PERMISSION: u8 = 77;

/// Why a command ends without its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// One line for the operator, without the command's name.
    pub text: String,
}

impl Failure {
    /// With `code` and a line.
    pub fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }

    /// The command line is wrong.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::new(USAGE, text)
    }

    /// A file that cannot be read.
    pub fn unreadable(path: &Path, error: &io::Error) -> Failure {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => NO_PERMISSION,
            _ => NO_INPUT,
        };
        Failure::new(code, format!("cannot read {}: {}", path.display(), system_error_text(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_says_which_and_why() {
        let failure = |kind: io::ErrorKind| Failure::unreadable(Path::new("/x"), &kind.into());
        assert_eq!(
            failure(io::ErrorKind::NotFound),
            Failure::new(66, "cannot read /x: no such file or directory")
        );
        assert_eq!(failure(io::ErrorKind::PermissionDenied).code, 77);
        assert_eq!(failure(io::ErrorKind::IsADirectory).code, 66);
    }
}
