//! `errors`: says why a query failed, or how often (docs/plugins/errors.md).
//!
//! Owns the counts of consolidated errors, one window per pattern. Says nothing about error
//! responses that an upstream gave, and never changes a response.

use super::{Context, Handler, Journal, Level, Now, Setup, Turn, pattern};
use crate::corefile::{CorefileError, Dispenser, Surroundings, format_duration, parse_duration};
use crate::dns::{Query, Response};
use regex::Regex;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often ended windows are looked for: a summary is at most this late.
const TICK: Duration = Duration::from_millis(250);

/// Reads the directive.
///
/// # Errors
///
/// `invalid log file: …` for a word that is not `stdout`; `Wrong argument count or unexpected line
/// ending after '…'`; `Syntax error: Unexpected token '…', expecting 'Unknown field …'`; of
/// `consolidate` also what is wrong with its duration or its regular expression, `unknown log level
/// argument in consolidate: …` and `log level must come before show_first in consolidate`; `this plugin
/// can only be used once per Server Block`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut patterns = Vec::new();
    let mut is_first = true;
    while dispenser.next() {
        if !is_first {
            return Err(dispenser.once_err());
        }
        is_first = false;
        match dispenser.remaining_args()[..] {
            [] | ["stdout"] => {}
            [file] => return Err(dispenser.err(format!("invalid log file: {file}"))),
            _ => return Err(dispenser.arg_err()),
        }
        while dispenser.next_block() {
            match dispenser.val() {
                "stacktrace" => setup.block.stacktrace = true,
                "consolidate" => patterns.push(consolidate(dispenser)?),
                other => return Err(dispenser.syntax_err(&format!("Unknown field {other}"))),
            }
        }
    }
    setup.block.add(Errors { patterns });
    Ok(())
}

/// `consolidate DURATION REGEXP [LEVEL] [show_first]`.
fn consolidate(dispenser: &mut Dispenser<'_>) -> Result<Pattern, CorefileError> {
    let words = dispenser.remaining_args();
    let (period, text, options) = match words[..] {
        [period, text, ref options @ ..]
            if options.len() <= 1 || options.len() == 2 && options.contains(&"show_first") =>
        {
            (period, text, options)
        }
        _ => return Err(dispenser.arg_err()),
    };
    let nanoseconds = parse_duration(period).map_err(|error| dispenser.err(error))?;
    let regex = pattern::compile(text).map_err(|error| dispenser.err(error))?;
    let (mut level, mut shows_first) = (None, false);
    for option in options {
        let chosen = match *option {
            "warning" => Level::Warning,
            "error" => Level::Error,
            "info" => Level::Info,
            "debug" => Level::Debug,
            "show_first" => {
                shows_first = true;
                continue;
            }
            // Two words behind the expression are those of later releases, or too many.
            _ if options.len() > 1 => return Err(dispenser.arg_err()),
            other => {
                let text = format!("unknown log level argument in consolidate: {other}");
                return Err(dispenser.err(text));
            }
        };
        if shows_first {
            return Err(dispenser.err("log level must come before show_first in consolidate"));
        }
        level = Some(chosen);
    }
    Ok(Pattern {
        regex,
        text: text.to_owned(),
        period: Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)),
        level: level.unwrap_or(Level::Error),
        shows_first,
        window: Mutex::default(),
    })
}

/// The handler.
struct Errors {
    patterns: Vec<Pattern>,
}

/// Errors that are counted instead of written.
struct Pattern {
    regex: Regex,
    text: String,
    period: Duration,
    level: Level,
    shows_first: bool,
    window: Mutex<Window>,
}

/// A period that began with its first error.
#[derive(Default)]
struct Window {
    count: u64,
    since: Duration,
    /// The last summary is written: what comes now is for nobody to sum up.
    is_last: bool,
}

impl Pattern {
    fn window(&self) -> MutexGuard<'_, Window> {
        // A number and a moment: there is no half-made state to fear.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one; true for the first of its window. `None` behind the last summary: then each
    /// error is a line of its own.
    fn count(&self, now: Now) -> Option<bool> {
        let mut window = self.window();
        if window.is_last {
            return None;
        }
        if window.count == 0 {
            window.since = now.monotonic;
        }
        window.count += 1;
        Some(window.count == 1)
    }

    /// Ends the window and says its count. A single error that was shown already says nothing.
    fn report(&self, count: u64, journal: &dyn Journal) {
        if count > u64::from(self.shows_first) {
            journal.line(
                self.level,
                format_args!(
                    "plugin/errors: {count} errors like '{}' occurred in last {}",
                    self.text,
                    format_duration(self.period)
                ),
            );
        }
    }
}

impl Handler for Errors {
    fn word(&self) -> &'static str {
        "errors"
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let Some(error) = &response.error else { return Turn::Up };
        let mut level = Level::Error;
        if let Some(pattern) = self.patterns.iter().find(|pattern| pattern.regex.is_match(error))
            && let Some(is_first) = pattern.count(context.now)
        {
            if !(is_first && pattern.shows_first) {
                return Turn::Up;
            }
            level = pattern.level;
        }
        context.journal.line(
            level,
            format_args!(
                "plugin/errors: {} {} {}: {error}",
                response.rcode.0,
                query.name(),
                query.qtype()
            ),
        );
        Turn::Up
    }

    fn upkeep_every(&self) -> Option<Duration> {
        (!self.patterns.is_empty()).then_some(TICK)
    }

    fn upkeep(&self, now: Now, _surroundings: &dyn Surroundings, journal: &dyn Journal) {
        for pattern in &self.patterns {
            let count = {
                let mut window = pattern.window();
                if now.monotonic.saturating_sub(window.since) < pattern.period {
                    continue;
                }
                std::mem::take(&mut window.count)
            };
            pattern.report(count, journal);
        }
    }

    fn flush(&self, _now: Now, journal: &dyn Journal) {
        for pattern in &self.patterns {
            let count = {
                let mut window = pattern.window();
                window.is_last = true;
                std::mem::take(&mut window.count)
            };
            pattern.report(count, journal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::{Rcode, RecordType};
    use crate::plugin::testing::{Bench, query};

    fn failing(text: &str) -> impl FnMut(&Query<'_>, &mut Response) {
        move |_, response| response.fail(Rcode::SERVFAIL, Some(text.into()))
    }

    fn bench(directives: &str) -> (Bench, crate::plugin::Chain) {
        let mut bench = Bench::new();
        let chain = bench.load(directives, &MemorySurroundings::default()).unwrap();
        (bench, chain)
    }

    #[test]
    fn an_error_is_written_with_rcode_name_and_type() {
        let (mut bench, chain) = bench("errors");
        bench.ask(&chain, query("Fail.Test.", RecordType(65400)), failing("i/o timeout"));
        assert_eq!(
            bench.journal.take(),
            ["[ERROR] plugin/errors: 2 fail.test. TYPE65400: i/o timeout"]
        );
    }

    #[test]
    fn an_error_response_without_an_error_is_not_written() {
        let (mut bench, chain) = bench("errors stdout");
        bench.ask(&chain, query("a.test.", RecordType::A), |_, response| {
            response.fail(Rcode::REFUSED, None);
        });
        assert!(bench.journal.take().is_empty());
    }

    #[test]
    fn equal_errors_become_one_line_when_their_period_ends() {
        let (mut bench, chain) = bench("errors {\n consolidate 1m \"time.*\" warning\n}");
        for _ in 0..5 {
            bench.ask(&chain, query("a.test.", RecordType::A), failing("i/o timeout"));
        }
        bench.advance(Duration::from_secs(59));
        bench.upkeep(&chain, &MemorySurroundings::default());
        assert!(bench.journal.take().is_empty());
        bench.advance(Duration::from_secs(1));
        bench.upkeep(&chain, &MemorySurroundings::default());
        bench.upkeep(&chain, &MemorySurroundings::default());
        assert_eq!(
            bench.journal.take(),
            ["[WARNING] plugin/errors: 5 errors like 'time.*' occurred in last 1m0s"]
        );
    }

    #[test]
    fn the_first_matching_pattern_counts_and_a_flush_writes_what_is_pending() {
        let (mut bench, chain) =
            bench("errors {\n consolidate 1s b\n consolidate 2s \"[ab]\" info\n}");
        for text in ["b", "a", "b", "other"] {
            bench.ask(&chain, query("a.test.", RecordType::A), failing(text));
        }
        bench.flush(&chain);
        assert_eq!(
            bench.journal.take(),
            [
                "[ERROR] plugin/errors: 2 a.test. A: other",
                "[ERROR] plugin/errors: 2 errors like 'b' occurred in last 1s",
                "[INFO] plugin/errors: 1 errors like '[ab]' occurred in last 2s",
            ]
        );
    }

    #[test]
    fn show_first_writes_the_first_at_once_and_counts_only_when_there_are_more() {
        let (mut bench, chain) = bench("errors {\n consolidate 1s a warning show_first\n}");
        let one = |bench: &mut Bench| {
            bench.ask(&chain, query("a.test.", RecordType::A), failing("a"));
        };
        one(&mut bench);
        bench.advance(Duration::from_secs(1));
        bench.upkeep(&chain, &MemorySurroundings::default());
        assert_eq!(bench.journal.take(), ["[WARNING] plugin/errors: 2 a.test. A: a"]);
        one(&mut bench);
        one(&mut bench);
        bench.flush(&chain);
        assert_eq!(
            bench.journal.take(),
            [
                "[WARNING] plugin/errors: 2 a.test. A: a",
                "[WARNING] plugin/errors: 2 errors like 'a' occurred in last 1s"
            ]
        );
    }

    #[test]
    fn behind_the_flush_every_error_is_a_line_of_its_own() {
        let (mut bench, chain) = bench("errors {\n consolidate 1h a info\n}");
        bench.flush(&chain);
        bench.ask(&chain, query("a.test.", RecordType::A), failing("a"));
        assert_eq!(bench.journal.take(), ["[ERROR] plugin/errors: 2 a.test. A: a"]);
    }

    #[test]
    fn mistakes_are_named_as_coredns_names_them() {
        for (directives, text) in [
            (
                "errors foo",
                "plugin/errors: Corefile:2 - Error during parsing: invalid log file: foo",
            ),
            (
                "errors {\n foo\n}",
                "plugin/errors: Corefile:3 - Syntax error: Unexpected token 'foo', expecting 'Unknown field foo'",
            ),
            (
                "errors {\n consolidate 1m\n}",
                "plugin/errors: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after '1m'",
            ),
            (
                "errors {\n consolidate 1m \"(\"\n}",
                "plugin/errors: Corefile:3 - Error during parsing: error parsing regexp: missing closing ): `(`",
            ),
            (
                "errors {\n consolidate 1 a\n}",
                "plugin/errors: Corefile:3 - Error during parsing: time: missing unit in duration \"1\"",
            ),
            (
                "errors {\n consolidate 1s a loud show_first\n}",
                "plugin/errors: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'show_first'",
            ),
            (
                "errors {\n consolidate 1s a loud\n}",
                "plugin/errors: Corefile:3 - Error during parsing: unknown log level argument in consolidate: loud",
            ),
            (
                "errors {\n consolidate 1s a info debug\n}",
                "plugin/errors: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'debug'",
            ),
            (
                "errors {\n consolidate 5m .* i/o timeout$\n}",
                "plugin/errors: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'timeout$'",
            ),
            (
                "errors {\n consolidate 1s a show_first info\n}",
                "plugin/errors: Corefile:3 - Error during parsing: log level must come before show_first in consolidate",
            ),
            (
                "errors\nerrors",
                "Corefile:3 - plugin/errors: this plugin can only be used once per Server Block",
            ),
        ] {
            let error = Bench::new().load_error(directives, &MemorySurroundings::default());
            assert_eq!(error, text, "{directives}");
        }
    }
}
