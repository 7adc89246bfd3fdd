//! `nodens completions SHELL`: the script that completes nodens's commands and options.

use super::failure::Failure;
use super::{output, whole};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

/// The shells, by the names that the command takes.
const SHELLS: [(&str, Shell); 3] =
    [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

/// Its command line.
pub(super) fn command() -> Command {
    let shells = PossibleValuesParser::new(SHELLS.map(|(name, _)| name));
    Command::new("completions")
        .about("Print the completion script of a shell")
        .arg(Arg::new("SHELL").help("Whose script").required(true).value_parser(shells))
}

/// Prints the script.
pub(super) fn run(matches: &ArgMatches) -> Result<u8, Failure> {
    let wanted = matches.get_one::<String>("SHELL").map_or("", String::as_str);
    let mut script = Vec::new();
    if let Some((_, shell)) = SHELLS.iter().find(|(name, _)| *name == wanted) {
        clap_complete::generate(*shell, &mut whole(), "nodens", &mut script);
    }
    output::write(&String::from_utf8_lossy(&script)).map(|()| 0)
}
