//! `nodens man`: the manual page, of nodens or of one of its commands.
//!
//! Owns the sections that the command line does not know: the flags of serving, exit codes, files.

use super::failure::{Failure, INTERNAL};
use super::{output, whole};
use crate::app;
use clap::{Arg, ArgMatches, Command};
use clap_mangen::Man;
use std::io;

/// Its command line.
pub(super) fn command() -> Command {
    Command::new("man")
        .about("Print the manual page")
        .long_about("Print the manual page, in roff: nodens man | man -l -")
        .arg(Arg::new("COMMAND").help("Of which command; of nodens itself without one"))
}

/// Prints the page.
pub(super) fn run(matches: &ArgMatches) -> Result<u8, Failure> {
    let page = match matches.get_one::<String>("COMMAND") {
        None => page_of_all(),
        Some(word) => {
            let mut all = whole();
            all.build();
            let Some(command) = all.find_subcommand(word) else {
                return Err(Failure::usage(format!("there is no command '{word}'")));
            };
            page_of(command.clone())
        }
    };
    let page = page.map_err(|error| Failure::new(INTERNAL, error.to_string()))?;
    output::write(&page).map(|()| 0)
}

fn page_of(command: Command) -> io::Result<String> {
    let mut page = Vec::new();
    Man::new(command).manual("User Commands").render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn page_of_all() -> io::Result<String> {
    let mut page = Vec::new();
    let man = Man::new(whole()).manual("User Commands");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned() + &serving() + REST)
}

/// The flags of serving, in node-cache's syntax.
fn serving() -> String {
    let mut text = String::from(
        ".SH SERVING\nWithout a command, when the first argument begins with a dash or when called \
         node\\-cache, nodens takes the flags of node\\-cache; one dash or two, \
         \\fI=VALUE\\fR or the next argument.\n",
    );
    for flag in app::flag_texts() {
        let value = flag.value.map(|value| format!(" \\fI{}\\fR", roff(value))).unwrap_or_default();
        text += &format!(".TP\n\\fB\\-{}\\fR{value}\n{}\n", roff(flag.name), roff(&flag.help));
    }
    text
}

const REST: &str = ".SH \"EXIT STATUS\"
Serving ends as node\\-cache does: 0 after a signal, 1 when it cannot start, 2 for a wrong flag.
Commands use the codes of sysexits.h:
.TP
.B 0
done
.TP
.B 64
the command line is wrong
.TP
.B 65
the input is wrong
.TP
.B 66
an input file is missing
.TP
.B 69
nobody replied
.TP
.B 70
an internal error
.TP
.B 71
the system refused something
.TP
.B 74
output could not be written
.TP
.B 75
not now: somebody is in the way
.TP
.B 76
the other side does not speak as it should
.TP
.B 77
not permitted
.SH ENVIRONMENT
.TP
.B NO_COLOR
no colour, whatever its value, unless empty
.SH \"SEE ALSO\"
.BR dig (1)
";

/// Plain text for roff: hyphens stay hyphens, and no line becomes a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
