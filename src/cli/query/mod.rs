//! `nodens query`: asks a DNS server, with dig's command line and dig's output.
//!
//! Owns the exit codes, which tell what came: scripts need no parsing. It asks one server at a time
//! over UDP, TCP, TLS, HTTPS or QUIC; it follows no delegation and validates nothing.

mod exchange;
mod json;
mod message;
mod name;
mod options;
mod plain;
mod rdata;
mod reply;
mod secure;
mod servers;
mod settings;
mod text;
mod words;

use super::failure::{Failure, INTERNAL, PROTOCOL};
use super::output;
use crate::dns::{Rcode, RecordType};
use clap::{Arg, ArgAction, ArgMatches, Command};
use exchange::Answer;
use options::{DASHES, PLUSES, Value};
use reply::Reply;
use secure::Secure;
use servers::System;
use settings::Way;
use std::io::IsTerminal;
use std::time::SystemTime;
use text::{Paint, Told};
use tokio::runtime::Runtime;
use words::{Format, Lookup};

/// A reply came, and its rcode is not NOERROR.
const REFUSED: u8 = 1;

/// Its command line. The options are here for help, manual and completions; [`translate`] leaves
/// their reading to `words`, since clap knows neither `@server` nor `+short` nor their order.
pub(super) fn command() -> Command {
    let command = Command::new("query")
        .about("Ask a DNS server, with dig's arguments and output")
        .long_about(
            "Ask a DNS server, with dig's arguments in any order and dig's output. Without @SERVER \
             it asks the servers of /etc/resolv.conf, without a type for A, without a name for the \
             NS records of the root. Options before the first name hold for all names.",
        )
        .override_usage("nodens query [@SERVER] [-p PORT] [NAME] [TYPE] [CLASS] [+OPTION...]")
        .after_help(after_help())
        .arg(
            Arg::new("WORDS")
                .num_args(0..)
                .value_name("WORD")
                .help("@SERVER, NAME, TYPE, CLASS, +OPTION, in any order, more than one NAME too"),
        );
    DASHES.iter().fold(command, |command, dash| {
        let argument = Arg::new(dash.letter).short(dash.letter.chars().next()).help(dash.help);
        let argument = if dash.letter == "o" { argument.long("output") } else { argument };
        command.arg(match dash.value {
            Some(value) => argument.value_name(value),
            None => argument.action(ArgAction::SetTrue),
        })
    })
}

fn after_help() -> String {
    let mut text = String::from(
        "Options with a plus; the beginning of one is enough where it fits no other:\n",
    );
    for plus in PLUSES {
        let value = match plus.value {
            Value::None => String::new(),
            Value::May(value) => format!("[={value}]"),
            Value::Needed(value) => format!("={value}"),
        };
        let no = if plus.can_be_off { "[no]" } else { "" };
        let option = format!("+{no}{}{value}", plus.name);
        text += &format!("  {option:<30} {}\n", plus.help);
    }
    text + "\nExit status: 0 every question was answered with NOERROR, 1 a reply has another rcode \
            (NXDOMAIN, SERVFAIL, REFUSED ...), 64 the command line is wrong, 65 or 66 a file of \
            +tls-ca is wrong or missing, 69 nobody replied, 76 what replied does not speak as it \
            should or is not believed. Of several questions the greatest counts."
}

/// The words behind `query` as clap may have them: all of them values, but a call for help.
pub(super) fn translate(arguments: &[String]) -> Vec<String> {
    let mut line = arguments.to_vec();
    let wants_help = line.iter().skip(2).any(|word| word == "--help" || word == "-h");
    if wants_help {
        line.truncate(2);
        line.push("--help".to_owned());
    } else {
        line.insert(2, "--".to_owned());
    }
    line
}

/// Asks and shows.
pub(super) fn run(matches: &ArgMatches) -> Result<u8, Failure> {
    let words: Vec<String> =
        matches.get_many::<String>("WORDS").unwrap_or_default().cloned().collect();
    let line = words::parse(&words)
        .map_err(|why| Failure::usage(format!("{why} (see nodens query --help)")))?;
    let system = System::read();
    // Files first: nobody is asked when one of them is wrong. What is the same is read once.
    let mut secures: Vec<Secure> = Vec::with_capacity(line.lookups.len());
    for (place, lookup) in line.lookups.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| line.lookups.get(before));
        let is_same = before.is_some_and(|one| Secure::is_same(&one.settings, &lookup.settings));
        let secure = match secures.last() {
            Some(last) if is_same => last.clone(),
            _ => Secure::prepare(&lookup.settings)?,
        };
        secures.push(secure);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(INTERNAL, format!("cannot start: {error}")))?;
    let mut code = 0;
    let mut shown = Some(words.as_slice());
    for (lookup, secure) in line.lookups.iter().zip(&secures) {
        let told = one(&runtime, &system, lookup, secure).and_then(|(reply, answer)| {
            let when = SystemTime::now();
            let told = Told { reply: &reply, answer: &answer, when, words: shown.take() };
            output::write(&told_as(&told, lookup, line.format))?;
            Ok(if reply.rcode == Rcode::NOERROR { 0 } else { REFUSED })
        });
        let own = told.unwrap_or_else(|failure| {
            output::complain(&format!("nodens query: {}", failure.text));
            failure.code
        });
        code = code.max(own);
    }
    Ok(code)
}

fn told_as(told: &Told<'_>, lookup: &Lookup, format: Format) -> String {
    match format {
        Format::Json => format!("{:#}\n", json::object(told.reply, told.answer, told.when)),
        Format::Text if lookup.settings.shown.is_short => text::short(told.reply),
        Format::Text => text::whole(told, &lookup.settings.shown, paint()),
    }
}

/// Colours are for people at a terminal who did not ask for none (no-color.org).
fn paint() -> Paint {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    match std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb {
        true => Paint::Colour,
        false => Paint::Plain,
    }
}

/// Asks for the names of a lookup until one is there; the last reply counts.
fn one(
    runtime: &Runtime,
    system: &System,
    lookup: &Lookup,
    secure: &Secure,
) -> Result<(Reply, Answer), Failure> {
    let settings = &lookup.settings;
    let servers = system.servers(settings)?;
    // ANY is for streams, as with dig.
    let over_tcp = lookup.qtype == RecordType::ANY && !settings.has_way;
    let way = if over_tcp { &Way::Tcp } else { &settings.way };
    let mut last = None;
    for name in system.names(lookup) {
        let id = rand::random();
        let query = message::query(id, (&name, lookup.qtype, lookup.qclass), settings)
            .map_err(|why| Failure::new(INTERNAL, why))?;
        let answer = runtime.block_on(exchange::ask(&query, &servers, settings, way, secure))?;
        let reply = Reply::read(&answer.wire).map_err(|why| {
            let from = exchange::shown(&answer.server);
            Failure::new(PROTOCOL, format!("the reply from {from} is malformed: {why}"))
        })?;
        let is_there = reply.rcode != Rcode::NXDOMAIN;
        last = Some((reply, answer));
        if is_there {
            break;
        }
    }
    last.ok_or_else(|| Failure::new(INTERNAL, "there was no name to ask for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_sees_the_words_as_values() {
        let line = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            translate(&words).join(" ")
        };
        assert_eq!(line("nodens query -x ::1 +short"), "nodens query -- -x ::1 +short");
        assert_eq!(line("nodens query"), "nodens query --");
        assert_eq!(line("nodens query a -h"), "nodens query --help");
    }

    #[test]
    fn names_of_options_are_their_own() {
        let mut names: Vec<&str> =
            PLUSES.iter().flat_map(|plus| [&[plus.name], plus.aliases].concat()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        // `+noX` is X turned off.
        assert!(names.iter().all(|name| !name.starts_with("no")), "{names:?}");
    }
}
