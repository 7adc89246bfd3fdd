//! The command line: node-cache's flags in Go's syntax.
//!
//! Owns what a command line asks for. A pure function of the arguments: nothing is touched before the
//! whole line is known to be good, `-version` and `-plugins` included.

mod syntax;
mod table;
mod values;

use super::options::{self, Options};
use super::version;
use crate::plugin::TABLE;
use syntax::{End, command, translate};

pub use table::{FlagText, flag_texts};
pub(super) use values::Values;

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Serve.
    Run(Box<Options>),
    /// Write `text` as it is and exit with `code`.
    Print {
        /// Ends in a newline.
        text: String,
        /// Where it goes.
        stream: Stream,
        /// 0, 1 or 2.
        code: u8,
    },
    /// Log at FATAL (`Error parsing flags - …, Exiting`) and exit with 1.
    Fatal(String),
    /// Log without a level (words that belong to no flag) and exit with 1.
    Extra(String),
}

/// An output of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// Reads the command line; `arguments` start with the program's name.
pub(super) fn parse(arguments: &[String]) -> Outcome {
    let program = arguments.first().map_or("nodens", String::as_str);
    let line = translate(arguments.get(1..).unwrap_or_default());
    let bad = |text: String| Outcome::Print {
        text: format!("{text}\n{}", usage(program)),
        stream: Stream::Error,
        code: 2,
    };
    // Whatever stands before the place where reading ended is judged first, as Go does.
    let values = match command().try_get_matches_from(line.flags) {
        Ok(values) => values,
        Err(error) => {
            let fault = std::error::Error::source(&error).map(ToString::to_string);
            return bad(fault.unwrap_or_else(|| error.to_string().trim_end().to_owned()));
        }
    };
    let rest = match line.end {
        End::Rest(rest) => rest,
        End::Help => {
            return Outcome::Print { text: usage(program), stream: Stream::Error, code: 0 };
        }
        End::Fault(text) => return bad(text),
    };
    let values = Values::new(&values);
    let options = match options::check(&values) {
        Ok(options) => options,
        Err(text) => return Outcome::Fatal(format!("Error parsing flags - {text}, Exiting")),
    };
    if !rest.is_empty() {
        return Outcome::Extra(format!("extra command line arguments: [{}]", rest.join(" ")));
    }
    match asked_for(&values) {
        Some(text) => Outcome::Print { text, stream: Stream::Out, code: 0 },
        None => Outcome::Run(Box::new(options)),
    }
}

/// What `-version` or `-plugins` shows in place of serving.
fn asked_for(values: &Values<'_>) -> Option<String> {
    if values.switch("version") {
        return Some(format!("{}\n", version::banner()));
    }
    values.switch("plugins").then(plugins_text)
}

/// `bind` and so on, one a line, in alphabetical order, and an empty line.
fn plugins_text() -> String {
    let carried = TABLE.iter().filter(|row| row.setup.is_ok());
    let mut words: Vec<String> = carried.map(|row| format!("{}\n", row.word)).collect();
    words.sort();
    words.concat() + "\n"
}

/// The usage text in the form of Go's `flag.PrintDefaults`.
fn usage(program: &str) -> String {
    let mut text = format!(
        "Usage of {program}:\nRuns nodens (CoreDNS v{} semantics) as a nodelocal cache listening on the specified ip:port\n\n",
        version::COREDNS_VERSION
    );
    for FlagText { name, value, help } in flag_texts() {
        let value = value.map(|value| format!(" {value}")).unwrap_or_default();
        text.push_str(&format!("  -{name}{value}\n    \t{help}\n"));
    }
    if !program.ends_with("node-cache") {
        text.push_str(
            "\nWithout flags it serves this machine on 127.0.0.1:1053. Commands beside serving: nodens help\n",
        );
    }
    text
}

#[cfg(test)]
mod tests;
