//! Go's `time.ParseDuration`, `strconv.Atoi` and `strconv.ParseUint`, with their error texts.
//!
//! Pure functions; operators see their errors, so the texts are Go's to the letter.

use super::quote;
use std::fmt::Write;
use std::time::Duration;

/// A signed Go duration in nanoseconds; the error is Go's text, such as
/// `time: missing unit in duration "5"`.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", time_quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    // Up to 2^63, which only a negative duration may reach.
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|letter: char| letter == '.' || letter.is_ascii_digit());
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", time_quote(text)));
        }
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                return Err(format!(
                    "time: unknown unit {} in duration {}",
                    time_quote(unit),
                    time_quote(text)
                ));
            }
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total = whole
            .checked_mul(scale)
            .and_then(|part| part.checked_add(fraction_of(fraction, scale)))
            .and_then(|part| total.checked_add(part))
            .filter(|&total| total <= 1 << 63)
            .ok_or_else(invalid)?;
        rest = after;
    }
    match (negative, i64::try_from(total)) {
        (true, Ok(total)) => Ok(-total),
        (true, Err(_)) => Ok(i64::MIN),
        (false, total) => total.map_err(|_| invalid()),
    }
}

/// `text` in double quotes as Go's `time` shows it: octet by octet what is no printable ASCII.
fn time_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='\u{7f}' => quoted.push(letter),
            other => {
                for octet in other.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(quoted, "\\x{octet:02x}");
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// `0.DIGITS * scale`, rounded down; digits beyond 18 do not count.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    let digits = &digits[..digits.len().min(18)];
    let Ok(value) = digits.parse::<u128>() else { return 0 };
    let divisor = 10u128.pow(digits.len() as u32);
    u64::try_from(value * u128::from(scale) / divisor).unwrap_or(0)
}

/// Go's way to print a duration: `1m30s`, `500ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, digits) = match nanos {
            0..1_000 => ("ns", 0),
            1_000..1_000_000 => ("µs", 3),
            _ => ("ms", 6),
        };
        return decimal(nanos, digits) + unit;
    }
    let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let mut text = String::new();
    // Writing to a String cannot fail.
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    text + &decimal(rest, 9) + "s"
}

/// `value / 10^digits` without trailing zeros.
fn decimal(value: u128, digits: usize) -> String {
    let scale = 10u128.pow(digits as u32);
    let (whole, rest) = (value / scale, value % scale);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{rest:0digits$}").trim_end_matches('0'))
}

/// `strconv.Atoi`: `strconv.Atoi: parsing "a": invalid syntax` or `: value out of range`.
///
/// # Errors
///
/// No decimal digits behind an optional sign, or a number beyond 64 bits, in Go's words.
pub fn parse_integer(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    match text.parse() {
        _ if !is_digits(digits) => {
            Err(format!("strconv.Atoi: parsing {}: invalid syntax", quote(text)))
        }
        Ok(value) => Ok(value),
        Err(_) => Err(format!("strconv.Atoi: parsing {}: value out of range", quote(text))),
    }
}

/// `strconv.ParseUint` in base 10 for numbers of `bits` bits (1 to 64).
///
/// # Errors
///
/// No decimal digits, or a number beyond `bits` bits, in Go's words.
pub fn parse_unsigned(text: &str, bits: u32) -> Result<u64, String> {
    if !is_digits(text) {
        return Err(format!("strconv.ParseUint: parsing {}: invalid syntax", quote(text)));
    }
    match text.parse::<u64>() {
        Ok(value) if bits >= 64 || value >> bits == 0 => Ok(value),
        _ => Err(format!("strconv.ParseUint: parsing {}: value out of range", quote(text))),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("+5s", 5_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100us", 100_000),
            ("2µs", 2_000),
            ("60ns", 60),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("1.0000000000000000000001s", 1_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn bad_durations_give_gos_texts() {
        for (text, error) in [
            ("5", "time: missing unit in duration \"5\""),
            ("", "time: invalid duration \"\""),
            ("off", "time: invalid duration \"off\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1s ", "time: unknown unit \"s \" in duration \"1s \""),
            (".s", "time: invalid duration \".s\""),
            ("a\n\"\\µ", "time: invalid duration \"a\\x0a\\\"\\\\\\xc2\\xb5\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
            ("99999999999h", "time: invalid duration \"99999999999h\""),
        ] {
            assert_eq!(parse_duration(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_000_000_000_000, "25h0m0s"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn numbers_read_as_go_reads_them() {
        assert_eq!(parse_integer("+7"), Ok(7));
        assert_eq!(parse_integer("-007"), Ok(-7));
        assert_eq!(
            parse_integer("0x1"),
            Err("strconv.Atoi: parsing \"0x1\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_integer("99999999999999999999"),
            Err("strconv.Atoi: parsing \"99999999999999999999\": value out of range".to_owned())
        );
        assert_eq!(parse_unsigned("65535", 16), Ok(65535));
        assert!(parse_unsigned("65536", 16).is_err_and(|text| text.ends_with("out of range")));
        assert!(parse_unsigned("+1", 16).is_err_and(|text| text.ends_with("invalid syntax")));
        assert!(parse_integer("-").is_err());
    }
}
