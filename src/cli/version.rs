//! `nodens version`: which version this is, and which CoreDNS it behaves as.

use super::failure::Failure;
use super::output;
use crate::app;
use clap::{ArgMatches, Command};

/// Its command line.
pub(super) fn command() -> Command {
    Command::new("version").about("Show the version and exit")
}

/// Prints what `-version` prints.
pub(super) fn run(_: &ArgMatches) -> Result<u8, Failure> {
    output::write(&format!("{}\n", app::banner())).map(|()| 0)
}
