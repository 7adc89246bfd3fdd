//! The values of the flags, as they were given.
//!
//! Owns how one is read by its name; what it means is `options`' to say.

use clap::ArgMatches;
use clap::parser::ValueSource;

/// The values of all flags after parsing.
pub(in crate::app) struct Values<'m>(&'m ArgMatches);

impl<'m> Values<'m> {
    /// Of a command line that was parsed.
    pub(in crate::app) fn new(matches: &'m ArgMatches) -> Values<'m> {
        Values(matches)
    }

    /// The value of a text or duration flag as given, or its default.
    pub(in crate::app) fn text(&self, name: &str) -> &str {
        self.0.get_one::<String>(name).map_or("", String::as_str)
    }

    /// The value of a switch.
    pub(in crate::app) fn switch(&self, name: &str) -> bool {
        self.0.get_one::<bool>(name).copied().unwrap_or_default()
    }

    /// The value of a duration flag in nanoseconds.
    pub(in crate::app) fn nanoseconds(&self, name: &str) -> i64 {
        self.0.get_one::<i64>(name).copied().unwrap_or_default()
    }

    /// The value of whichever of two flags for one setting stands last.
    pub(in crate::app) fn last_of(&self, one: &str, other: &str) -> &str {
        let place = |name: &str| self.0.indices_of(name).and_then(Iterator::last);
        let given = |name: &str| self.0.value_source(name) == Some(ValueSource::CommandLine);
        match (given(one), given(other)) {
            (false, true) => self.text(other),
            (true, true) if place(other) > place(one) => self.text(other),
            _ => self.text(one),
        }
    }
}
