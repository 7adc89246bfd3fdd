//! What commands write: whole texts to standard output, one line to standard error.

use super::failure::{Failure, IO};
use std::io::{self, Write};

/// Writes `text` to standard output. A reader that went away (`| head`) is no failure.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(IO, format!("cannot write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one line to standard error. Nobody reads: nothing to be done about it.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
