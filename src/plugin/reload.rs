//! `reload`: look at the Corefile now and then, and load it again when it changed.
//!
//! Owns the grammar; the app keeps the time and loads.

use super::{Service, Setup};
use crate::corefile::{CorefileError, Dispenser, parse_duration};
use std::time::Duration;

/// The interval when none is given.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

/// The jitter when none is given.
const DEFAULT_JITTER: Duration = Duration::from_secs(15);

/// The least interval.
const LEAST_INTERVAL: Duration = Duration::from_secs(2);

/// The least jitter other than none at all.
const LEAST_JITTER: Duration = Duration::from_secs(1);

/// Reads the directive: its first line; further ones have no effect.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for more than two words; Go's text about
/// a duration; `interval value must be greater or equal to 2s`; `jitter value must be greater or equal
/// to 1s`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    let arguments = dispenser.remaining_args();
    if arguments.len() > 2 {
        return Err(dispenser.arg_err());
    }
    let interval = match arguments.first() {
        Some(text) => duration(text, dispenser)?,
        None => DEFAULT_INTERVAL,
    };
    if interval < LEAST_INTERVAL {
        return Err(dispenser.plain_err("interval value must be greater or equal to 2s"));
    }
    let jitter = match arguments.get(1) {
        Some(text) => duration(text, dispenser)?,
        None => DEFAULT_JITTER,
    };
    let is_zero = arguments.get(1).is_some_and(|text| parse_duration(text) == Ok(0));
    if jitter < LEAST_JITTER && !is_zero {
        return Err(dispenser.plain_err("jitter value must be greater or equal to 1s"));
    }
    setup.services.push(Service::Reload { interval, jitter: jitter.min(interval / 2) });
    Ok(())
}

/// A Go duration; a negative one is shorter than any bound here.
fn duration(text: &str, dispenser: &Dispenser<'_>) -> Result<Duration, CorefileError> {
    let nanos = parse_duration(text).map_err(|why| dispenser.plain_err(why))?;
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::corefile::MemorySurroundings;

    fn seconds(text: &str) -> (f64, f64) {
        let mut bench = Bench::new();
        bench.load(text, &MemorySurroundings::new()).unwrap();
        match bench.services.as_slice() {
            [Service::Reload { interval, jitter }] => {
                (interval.as_secs_f64(), jitter.as_secs_f64())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn jitter_is_at_most_half_the_interval() {
        assert_eq!(seconds("reload"), (30.0, 15.0));
        assert_eq!(seconds("reload 10s"), (10.0, 5.0));
        assert_eq!(seconds("reload 2s 1s"), (2.0, 1.0));
        assert_eq!(seconds("reload 10s 0"), (10.0, 0.0));
        assert_eq!(seconds("reload 10s 2s\nreload 20s"), (10.0, 2.0));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("1s", "Corefile:2 - plugin/reload: interval value must be greater or equal to 2s"),
            ("-5s", "Corefile:2 - plugin/reload: interval value must be greater or equal to 2s"),
            ("10s 0.5s", "Corefile:2 - plugin/reload: jitter value must be greater or equal to 1s"),
            ("10s -1s", "Corefile:2 - plugin/reload: jitter value must be greater or equal to 1s"),
            ("30", "Corefile:2 - plugin/reload: time: missing unit in duration \"30\""),
            (
                "10s 5s 1s",
                "plugin/reload: Corefile:2 - Error during parsing: Wrong argument count or unexpected line ending after '1s'",
            ),
        ] {
            let text = format!("reload {text}");
            assert_eq!(Bench::new().load_error(&text, &MemorySurroundings::new()), error);
        }
    }
}
