//! `trace`: accepted so that a Corefile for CoreDNS loads; nodens sends no spans.
//!
//! Owns the grammar and the one warning that it has no effect.

use super::{Level, Setup};
use crate::corefile::{CorefileError, Dispenser, parse_duration, parse_integer, parse_unsigned};

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; `tracing endpoint type '…' is not
/// supported`; Go's texts for numbers, durations and booleans (`strconv.ParseUint: parsing "…": invalid
/// syntax`); `datadog analytics rate must be between 0 and 1, '…' is not supported`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    while dispenser.next() {
        let arguments = dispenser.remaining_args();
        if arguments.len() > 2 {
            return Err(dispenser.arg_err());
        }
        if let [kind, _] = arguments.as_slice() {
            let kind = kind.to_lowercase();
            if kind != "zipkin" && kind != "datadog" {
                return Err(
                    dispenser.plain_err(format!("tracing endpoint type '{kind}' is not supported"))
                );
            }
        }
        while dispenser.next_block() {
            option(dispenser)?;
        }
    }
    setup.journal.line(
        Level::Warning,
        format_args!("plugin/trace: accepted without effect: nodens sends no spans"),
    );
    Ok(())
}

/// One line of the block; CoreDNS 1.13.2 passes over words that it does not know.
fn option(dispenser: &mut Dispenser<'_>) -> Result<(), CorefileError> {
    let word = dispenser.val();
    let arguments = dispenser.remaining_args();
    if word == "client_server" {
        return match arguments.as_slice() {
            [] => Ok(()),
            [text] if parses_as_bool(text) => Ok(()),
            [text] => Err(dispenser.plain_err(format!(
                "strconv.ParseBool: parsing {}: invalid syntax",
                crate::corefile::quote(text)
            ))),
            _ => Err(dispenser.arg_err()),
        };
    }
    let check: fn(&str) -> Result<(), String> = match word {
        "service" => |_| Ok(()),
        "every" => |text| parse_unsigned(text, 64).map(|_| ()),
        "zipkin_max_backlog_size" | "zipkin_max_batch_size" => {
            |text| parse_integer(text).map(|_| ())
        }
        "zipkin_max_batch_interval" => |text| parse_duration(text).map(|_| ()),
        "datadog_analytics_rate" => rate,
        _ => return Ok(()),
    };
    let text = match arguments.as_slice() {
        [text] => text,
        [] if word == "datadog_analytics_rate" => return Ok(()),
        _ => return Err(dispenser.arg_err()),
    };
    check(text).map_err(|why| dispenser.plain_err(why))
}

/// A share from 0 to 1.
fn rate(text: &str) -> Result<(), String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(()),
        Ok(rate) => Err(format!(
            "datadog analytics rate must be between 0 and 1, '{rate:.6}' is not supported"
        )),
        Err(_) => {
            let text = crate::corefile::quote(text);
            Err(format!("strconv.ParseFloat: parsing {text}: invalid syntax"))
        }
    }
}

/// Whether Go's `strconv.ParseBool` takes the text.
fn parses_as_bool(text: &str) -> bool {
    matches!(
        text,
        "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False"
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn it_is_accepted_with_one_warning() {
        let mut bench = Bench::new();
        let text = "trace zipkin 127.0.0.1:9411 {\n every 10\n service a\n client_server\n}";
        bench.load(text, &MemorySurroundings::new()).unwrap();
        assert_eq!(bench.journal.take().len(), 1);
        bench.load("trace", &MemorySurroundings::new()).unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("trace a b c", "Wrong argument count or unexpected line ending after 'c'"),
            ("trace jaeger x", "tracing endpoint type 'jaeger' is not supported"),
            ("trace {\n every\n}", "Wrong argument count or unexpected line ending after 'every'"),
            ("trace {\n every x\n}", "strconv.ParseUint: parsing \"x\": invalid syntax"),
            (
                "trace {\n datadog_analytics_rate 2\n}",
                "datadog analytics rate must be between 0 and 1, '2.000000' is not supported",
            ),
        ] {
            let found = Bench::new().load_error(text, &MemorySurroundings::new());
            assert!(found.ends_with(error), "{found}");
        }
    }
}
