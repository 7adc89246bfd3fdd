//! The commands beside serving: one file or folder each, `COMMANDS` the table.
//!
//! Decides whose command line it is: node-cache's, or a command's. Commands end with the codes of
//! sysexits.h and say what is wrong in one line; they change nothing unless that is their purpose.

pub mod check;
mod cleanup;
mod completions;
pub mod failure;
mod manual;
mod output;
mod query;
mod version;

use crate::app;
use clap::error::ErrorKind;
use clap::{ArgMatches, Command};
use failure::Failure;
use std::path::Path;

/// One command: a row of the table.
struct Entry {
    word: &'static str,
    /// Its command line, named as the word.
    command: fn() -> Command,
    /// What it does; gives the exit code.
    run: fn(&ArgMatches) -> Result<u8, Failure>,
}

const fn entry(
    word: &'static str,
    command: fn() -> Command,
    run: fn(&ArgMatches) -> Result<u8, Failure>,
) -> Entry {
    Entry { word, command, run }
}

/// The commands, in the order of the help text.
static COMMANDS: &[Entry] = &[
    entry("check", check::command, check::run),
    entry("cleanup", cleanup::command, cleanup::run),
    entry("completions", completions::command, completions::run),
    entry("man", manual::command, manual::run),
    entry(QUERY, query::command, query::run),
    entry("version", version::command, version::run),
];

/// Serving, as a command.
const RUN: &str = "run";

/// The command whose words are dig's.
const QUERY: &str = "query";

/// The whole program; `arguments` start with the program's name. Gives the exit code. Call
/// [`crate::sys::signals::ignore_until_handled`] before.
pub fn main(arguments: &[String]) -> u8 {
    if is_node_caches(arguments) {
        return app::main(arguments);
    }
    // The flags behind `run` are node-cache's, in its syntax.
    if let [program, word, flags @ ..] = arguments
        && word == RUN
        && !matches!(flags, [flag] if flag == "--help" || flag == "-h")
    {
        if let [corefile, rest @ ..] = flags
            && !corefile.starts_with('-')
        {
            return serve_corefile(corefile, rest);
        }
        let mut line = vec![program.clone()];
        line.extend_from_slice(flags);
        return app::main(&line);
    }
    if let [_, word, ..] = arguments
        && !is_command(word)
        && Path::new(word).is_file()
    {
        let hint = format!("'{word}' is no command; to serve by it: nodens {RUN} {word}");
        output::complain(&format!("nodens: {hint}"));
        return failure::USAGE;
    }
    // dig's syntax is not clap's.
    let translated = match arguments.get(1).is_some_and(|word| word == QUERY) {
        true => query::translate(arguments),
        false => arguments.to_vec(),
    };
    let matches = match whole().try_get_matches_from(&translated) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error, arguments),
    };
    let Some((word, own)) = matches.subcommand() else { return failure::USAGE };
    let Some(entry) = COMMANDS.iter().find(|entry| entry.word == word) else {
        return failure::USAGE;
    };
    match (entry.run)(own) {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&format!("nodens {word}: {}", failure.text));
            failure.code
        }
    }
}

/// `nodens run COREFILE`: what can be seen before is told with a command's exit codes.
fn serve_corefile(corefile: &str, rest: &[String]) -> u8 {
    let path = Path::new(corefile);
    let readable = match rest.first() {
        Some(extra) => {
            let text = format!(
                "unexpected argument '{extra}' behind the Corefile; with flags it is named by one: \
                 nodens run -conf {corefile} -localip ADDRESSES"
            );
            Err(Failure::usage(text))
        }
        None => can_be_read(path).map_err(|error| Failure::unreadable(path, &error)),
    };
    match readable {
        Ok(()) => app::serve_corefile(path),
        Err(failure) => {
            output::complain(&format!("nodens {RUN}: {}", failure.text));
            failure.code
        }
    }
}

fn can_be_read(path: &Path) -> std::io::Result<()> {
    match std::fs::File::open(path)?.metadata()?.is_dir() {
        true => Err(std::io::ErrorKind::IsADirectory.into()),
        false => Ok(()),
    }
}

/// Whether the command line is node-cache's: called so, nothing or a flag first, or a word that is
/// no command in front of the one flag that node-cache cannot do without.
fn is_node_caches(arguments: &[String]) -> bool {
    let program = arguments.first().map(Path::new).and_then(Path::file_name);
    let Some(first) = arguments.get(1) else { return true };
    let has_local_address = || {
        let flags = arguments.iter().map(|argument| argument.trim_start_matches('-'));
        arguments.iter().zip(flags).skip(2).any(|(argument, flag)| {
            argument.starts_with('-') && (flag == "localip" || flag.starts_with("localip="))
        })
    };
    program.is_some_and(|name| name == "node-cache")
        || first.starts_with('-')
        || (!is_command(first) && has_local_address())
}

fn is_command(word: &str) -> bool {
    word == RUN || word == "help" || COMMANDS.iter().any(|entry| entry.word == word)
}

/// The command line of all commands.
fn whole() -> Command {
    let all = Command::new("nodens")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .about("NodeLocal DNSCache: a caching DNS server for the nodes of a Kubernetes cluster")
        .long_about(
            "NodeLocal DNSCache: a caching DNS server for the nodes of a Kubernetes cluster. \
             Without arguments it serves this machine on 127.0.0.1:1053; with flags it is \
             node-cache (nodens -help shows them).",
        )
        .subcommand_required(true)
        .max_term_width(100)
        .subcommand(
            Command::new(RUN)
                .about("Serve: by a Corefile of your own, or with the flags of node-cache")
                .long_about(
                    "Serve. With a COREFILE: by it as it is, on this machine, without touching \
                     interfaces or rules; SIGUSR1, or its directive `reload`, takes an edit. With \
                     flags: as node-cache does, the same as without the word. With neither: this \
                     machine on 127.0.0.1:1053.",
                )
                .override_usage("nodens run [COREFILE | FLAGS]")
                .after_help("The flags: nodens -help"),
        );
    COMMANDS.iter().fold(all, |all, entry| all.subcommand((entry.command)()))
}

/// Help goes to standard output; anything else is one line and a wrong command line.
fn refuse(error: &clap::Error, arguments: &[String]) -> u8 {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp) {
        return output::write(&text).map_or_else(
            |failure| {
                output::complain(&format!("nodens: {}", failure.text));
                failure.code
            },
            |()| 0,
        );
    }
    let first: Vec<&str> =
        text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let line = first.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let help = help_for(arguments);
    output::complain(&format!("nodens: {line} (see {help})"));
    failure::USAGE
}

/// The command that tells more: `nodens help cleanup` once it is known which one is meant.
fn help_for(arguments: &[String]) -> String {
    match arguments.get(1).filter(|word| is_command(word) && *word != "help") {
        Some(word) => format!("nodens help {word}"),
        None => "nodens help".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_theirs(line: &str) -> bool {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        is_node_caches(&arguments)
    }

    #[test]
    fn flags_first_or_the_name_make_it_node_caches_line() {
        for line in [
            "nodens",
            "/nodens -localip 127.0.0.1",
            "nodens --version",
            "nodens -h",
            "/node-cache check",
            "nodens extra -localip=127.0.0.1",
            "nodens extra --localip 127.0.0.1",
        ] {
            assert!(is_theirs(line), "{line}");
        }
        for line in ["nodens version", "nodens help", "nodens run -localip=::1", "nodens chekc"] {
            assert!(!is_theirs(line), "{line}");
        }
    }

    #[test]
    fn who_mistypes_is_sent_to_the_help_of_the_command() {
        for (line, help) in [
            ("nodens cleanup --nosuch", "nodens help cleanup"),
            ("nodens chekc", "nodens help"),
            ("nodens help nothing", "nodens help"),
        ] {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(help_for(&arguments), help);
        }
    }

    #[test]
    fn the_command_line_holds_together() {
        whole().debug_assert();
        for entry in COMMANDS {
            assert_eq!((entry.command)().get_name(), entry.word);
        }
    }
}
