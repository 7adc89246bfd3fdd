//! Go's syntax of flags, for clap: one dash or two, `=VALUE` or the next argument, switches alone; and Go's
//! words for what is wrong with a value.

use super::table::FLAGS;
use super::table::Kind::{Duration, Switch, Text};
use clap::{Arg, Command};

/// A command line in clap's syntax, as far as Go would read it.
pub(super) struct Line {
    pub(super) flags: Vec<String>,
    pub(super) end: End,
}

/// Why reading ended.
pub(super) enum End {
    /// At the first argument that is no flag, or behind `--`: these follow.
    Rest(Vec<String>),
    /// At `-h` or `-help`.
    Help,
    /// At something that is not Go's syntax.
    Fault(String),
}

/// Go's syntax to clap's: one dash or two, `=VALUE` or the next argument, switches alone.
pub(super) fn translate(arguments: &[String]) -> Line {
    let mut flags = Vec::new();
    let mut rest = arguments;
    let end = loop {
        let Some((argument, behind)) = rest.split_first() else { break End::Rest(Vec::new()) };
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
            break End::Rest(rest.to_vec());
        };
        rest = behind;
        if body == "-" {
            break End::Rest(rest.to_vec());
        }
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.starts_with(['-', '=']) {
            break End::Fault(format!("bad flag syntax: {argument}"));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            break match name {
                "h" | "help" => End::Help,
                _ => End::Fault(format!("flag provided but not defined: -{name}")),
            };
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Switch(_)) => "true",
            (None, _) => match rest.split_first() {
                Some((value, behind)) => {
                    rest = behind;
                    value
                }
                None => break End::Fault(format!("flag needs an argument: -{name}")),
            },
        };
        flags.push(format!("--{name}={value}"));
    };
    Line { flags, end }
}

/// The text of a value that a flag does not take: the whole line that Go prints.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Fault(String);

/// clap's view of the table: every flag as `--NAME=VALUE`.
pub(super) fn command() -> Command {
    let command = Command::new("nodens")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    FLAGS.iter().fold(command, |command, flag| {
        let argument = Arg::new(flag.name).long(flag.name).require_equals(true).num_args(1);
        let name = flag.name;
        command.arg(match flag.kind {
            Switch(default) => argument
                .default_value(if default { "true" } else { "false" })
                .value_parser(move |text: &str| switch(name, text)),
            Text(default) => argument.default_value(default),
            Duration(default) => {
                argument.default_value(default).value_parser(move |text: &str| duration(name, text))
            }
        })
    })
}

/// Go's `strconv.ParseBool`.
fn switch(name: &str, text: &str) -> Result<bool, Fault> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            let text = crate::corefile::quote(text);
            Err(Fault(format!("invalid boolean value {text} for -{name}: parse error")))
        }
    }
}

fn duration(name: &str, text: &str) -> Result<i64, Fault> {
    crate::corefile::parse_duration(text).map_err(|_| {
        let text = crate::corefile::quote(text);
        Fault(format!("invalid value {text} for flag -{name}: parse error"))
    })
}
