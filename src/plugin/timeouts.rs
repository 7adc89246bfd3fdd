//! `timeouts`: how long TCP connections of clients may be silent.
//!
//! Owns the grammar and the bounds; whoever has the connections keeps the time.

use super::Setup;
use crate::corefile::{CorefileError, format_duration, parse_duration, parse_integer};
use std::time::Duration;

/// The least timeout.
const LEAST: Duration = Duration::from_secs(1);

/// The greatest timeout.
const GREATEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; `timeouts block with no timeouts
/// specified`; `unknown option: '…'`; `failed to parse duration '…'`; `timeout provided '…' needs to be
/// between 1 second and 24 hours`; `maxtcpqueries provided '…' needs to be -1 (unlimited) or a positive
/// integer`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let timeouts = &mut setup.block.timeouts;
    while dispenser.next() {
        if !dispenser.remaining_args().is_empty() {
            return Err(dispenser.arg_err().in_plugin("timeouts"));
        }
        let mut given = 0;
        while dispenser.next_block() {
            let option = dispenser.val();
            let arguments = dispenser.remaining_args();
            let [text] = arguments.as_slice() else { return Err(dispenser.arg_err()) };
            given += 1;
            if option == "maxtcpqueries" {
                timeouts.queries = Some(queries(text).map_err(|text| dispenser.err(text))?);
                continue;
            }
            let timeout = duration(text).map_err(|text| dispenser.err(text))?;
            match option {
                "read" => timeouts.read = Some(timeout),
                "write" => timeouts.write = Some(timeout),
                "idle" => timeouts.idle = Some(timeout),
                _ => return Err(dispenser.err(format!("unknown option: '{option}'"))),
            }
        }
        if given == 0 {
            let error = dispenser.err("timeouts block with no timeouts specified");
            return Err(error.in_plugin("timeouts"));
        }
    }
    Ok(())
}

/// The most queries of a connection; -1 means no limit.
fn queries(text: &str) -> Result<u64, String> {
    let number = parse_integer(text)
        .map_err(|error| format!("invalid value for maxtcpqueries '{text}': {error}"))?;
    match u64::try_from(number) {
        Ok(most @ 1..) => Ok(most),
        Err(_) if number == -1 => Ok(u64::MAX),
        _ => Err(format!(
            "maxtcpqueries provided '{number}' needs to be -1 (unlimited) or a positive integer"
        )),
    }
}

/// A Go duration, or whole seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let text = if parse_integer(text).is_ok() { format!("{text}s") } else { text.to_owned() };
    let nanos = parse_duration(&text).map_err(|_| format!("failed to parse duration '{text}'"))?;
    let timeout = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 || !(LEAST..=GREATEST).contains(&timeout) {
        let sign = if nanos < 0 { "-" } else { "" };
        return Err(format!(
            "timeout provided '{sign}{}' needs to be between 1 second and 24 hours",
            format_duration(timeout)
        ));
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{GivenTimeouts, Timeouts};
    use super::*;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn what_is_not_given_is_anothers_or_default() {
        let mut bench = Bench::new();
        bench.load("timeouts {\n read 1s\n idle 50\n}", &MemorySurroundings::new()).unwrap();
        let seconds = |number| Some(Duration::from_secs(number));
        let given =
            GivenTimeouts { read: seconds(1), idle: seconds(50), ..GivenTimeouts::default() };
        assert_eq!(bench.block.timeouts, given);
        let above = GivenTimeouts {
            read: seconds(2),
            write: seconds(7),
            queries: Some(9),
            ..GivenTimeouts::default()
        };
        let expected = Timeouts {
            read: Duration::from_secs(1),
            write: Duration::from_secs(7),
            idle: Duration::from_secs(50),
            queries: 9,
        };
        assert_eq!(given.over(above.over(Timeouts::default())), expected);
    }

    #[test]
    fn the_number_of_queries_may_stand_alone() {
        for (text, queries) in [("128", 128), ("-1", u64::MAX)] {
            let mut bench = Bench::new();
            let directive = format!("timeouts {{\n maxtcpqueries {text}\n}}");
            bench.load(&directive, &MemorySurroundings::new()).unwrap();
            assert_eq!(bench.block.timeouts.queries, Some(queries));
        }
    }

    #[test]
    fn mistakes_are_named() {
        let place = "plugin/timeouts: Corefile:3 - Error during parsing: ";
        for (text, error) in [
            ("timeouts", "plugin/timeouts: plugin/timeouts: Corefile:2 - Error during parsing: timeouts block with no timeouts specified".to_owned()),
            ("timeouts {\n read 0s\n}", format!("{place}timeout provided '0s' needs to be between 1 second and 24 hours")),
            ("timeouts {\n idle 25h\n}", format!("{place}timeout provided '25h0m0s' needs to be between 1 second and 24 hours")),
            ("timeouts {\n read -1s\n}", format!("{place}timeout provided '-1s' needs to be between 1 second and 24 hours")),
            ("timeouts {\n maxtcpqueries 0\n}", format!("{place}maxtcpqueries provided '0' needs to be -1 (unlimited) or a positive integer")),
            ("timeouts {\n maxtcpqueries x\n}", format!("{place}invalid value for maxtcpqueries 'x': strconv.Atoi: parsing \"x\": invalid syntax")),
            ("timeouts {\n read a\n}", format!("{place}failed to parse duration 'a'")),
            ("timeouts {\n foo 5s\n}", format!("{place}unknown option: 'foo'")),
        ] {
            assert_eq!(Bench::new().load_error(text, &MemorySurroundings::new()), error);
        }
    }
}
