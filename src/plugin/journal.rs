//! Lines for the operator. Plugins hand them over; where they go is the app's matter.

use std::fmt;

/// A line's level, printed as `[INFO]` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only with the `debug` plugin.
    Debug,
    /// Normal.
    Info,
    /// Something to look at.
    Warning,
    /// Something failed.
    Error,
}

impl Level {
    /// The word in brackets.
    pub fn word(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        }
    }
}

/// Hears nothing: for those who read a Corefile without serving it.
#[derive(Debug, Clone, Copy)]
pub struct SilentJournal;

impl Journal for SilentJournal {
    fn line(&self, _level: Level, _text: fmt::Arguments<'_>) {}
}

/// Takes lines. Never blocks: what does not fit into its bound is dropped and counted.
pub trait Journal: Send + Sync {
    /// One line, without level and newline: `plugin/errors: 2 a.test. A: …`.
    fn line(&self, level: Level, text: fmt::Arguments<'_>);

    /// The line of one query, as `log` writes it.
    fn query_line(&self, text: fmt::Arguments<'_>) {
        self.line(Level::Info, text);
    }

    /// Shows no lines below `least` from now on: with `debug` in a server block all, else those from
    /// [`Level::Info`] on.
    fn show_from(&self, least: Level) {
        let _ = least;
    }
}
