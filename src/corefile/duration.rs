//! Go's `time.ParseDuration`, `strconv.Atoi` and `strconv.ParseUint`, with their error texts.

use std::time::Duration;

/// A signed Go duration in nanoseconds; the error is Go's text, such as
/// `time: missing unit in duration "5"`.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let _ = text;
    todo!()
}

/// Go's way to print a duration: `1m30s`, `500ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let _ = duration;
    todo!()
}

/// `strconv.Atoi`: `strconv.Atoi: parsing "a": invalid syntax` or `: value out of range`.
pub fn parse_integer(text: &str) -> Result<i64, String> {
    let _ = text;
    todo!()
}

/// `strconv.ParseUint` in base 10 for numbers of `bits` bits.
pub fn parse_unsigned(text: &str, bits: u32) -> Result<u64, String> {
    let _ = (text, bits);
    todo!()
}
