//! Go's text/template, the part that Corefiles use: numbers, characters and strings to values.
//!
//! Owns Go's spelling of literals. Never knows where one stands.

use crate::corefile::quote;

/// A number that an integer holds, however it is written.
pub(super) fn integer(text: &str) -> Result<i128, String> {
    const FRACTION: &str = "floating-point numbers are not supported";
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_lowercase();
    let (radix, behind) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'0'..=b'9' | b'_', ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let is_misplaced =
        behind.ends_with('_') || behind.contains("__") || radix == 10 && behind.starts_with('_');
    let is_whole = !is_misplaced && !behind.is_empty();
    let plain = behind.replace('_', "");
    if is_whole && plain.chars().all(|digit| digit.is_digit(radix)) {
        let number = i128::from_str_radix(&plain, radix).ok();
        let most = if is_negative { 1 << 63 } else { i128::from(u64::MAX) };
        let number = number.filter(|number| *number <= most);
        let number = number.ok_or_else(|| format!("integer overflow: {}", quote(text)))?;
        return Ok(if is_negative { -number } else { number });
    }
    let is_fraction = lower.ends_with('i')
        || lower.parse::<f64>().is_ok()
        || radix == 16 && behind.contains(['.', 'p']) && behind.starts_with(|c: char| c != '.');
    Err(match is_fraction && lower.contains(['.', 'e', 'p', 'i']) {
        true => FRACTION.to_owned(),
        false => format!("illegal number syntax: {}", quote(text)),
    })
}

/// `'a'`, quotes included, as the number of its character.
pub(super) fn character(text: &str) -> Result<i128, String> {
    let inner = &text[1..text.len() - 1];
    let unquoted = unquote(inner, '\'')?;
    let mut letters = unquoted.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => Ok(i128::from(u32::from(letter))),
        (None, _) => Err("invalid syntax".to_owned()),
        _ => Err(format!("malformed character constant: {text}")),
    }
}

/// `"…"`, quotes included, as the text that it stands for.
pub(super) fn quoted(text: &str) -> Result<String, String> {
    unquote(&text[1..text.len() - 1], '"')
}

/// Go's escapes between quotes.
fn unquote(text: &str, quote: char) -> Result<String, String> {
    let bad = || "invalid syntax".to_owned();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let letter = rest.next().ok_or_else(bad)?;
        let (first, digits, radix) = match letter {
            'a' => ('\x07', 0, 0),
            'b' => ('\x08', 0, 0),
            'f' => ('\x0c', 0, 0),
            'n' => ('\n', 0, 0),
            'r' => ('\r', 0, 0),
            't' => ('\t', 0, 0),
            'v' => ('\x0b', 0, 0),
            '\\' => (letter, 0, 0),
            letter if letter == quote => (letter, 0, 0),
            'x' => ('0', 2, 16),
            'u' => ('0', 4, 16),
            'U' => ('0', 8, 16),
            '0'..='7' => (letter, 2, 8),
            _ => return Err(bad()),
        };
        if radix == 0 {
            out.push(first);
            continue;
        }
        let mut value = first.to_digit(radix).ok_or_else(bad)?;
        for _ in 0..digits {
            let digit = rest.next().and_then(|c| c.to_digit(radix)).ok_or_else(bad)?;
            value = value.checked_mul(radix).and_then(|v| v.checked_add(digit)).ok_or_else(bad)?;
        }
        if radix == 8 && value > 255 {
            return Err(bad());
        }
        out.push(char::from_u32(value).ok_or_else(bad)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gos() {
        for (text, number) in [
            ("0", 0),
            ("-3", -3),
            ("+7", 7),
            ("0x10", 16),
            ("0b11", 3),
            ("0o17", 15),
            ("017", 15),
            ("1_000", 1000),
        ] {
            assert_eq!(integer(text), Ok(number), "{text}");
        }
        for (text, error) in [
            ("0x", "illegal number syntax: \"0x\""),
            ("1_", "illegal number syntax: \"1_\""),
            ("09", "illegal number syntax: \"09\""),
            ("99999999999999999999", "integer overflow: \"99999999999999999999\""),
            ("1.5", "floating-point numbers are not supported"),
            ("1e3", "floating-point numbers are not supported"),
            ("2i", "floating-point numbers are not supported"),
        ] {
            assert_eq!(integer(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn characters_and_strings_are_gos() {
        assert_eq!(character("'a'"), Ok(97));
        assert_eq!(character(r"'\n'"), Ok(10));
        assert_eq!(character("''"), Err("invalid syntax".to_owned()));
        assert_eq!(character("'ab'"), Err("malformed character constant: 'ab'".to_owned()));
        assert_eq!(quoted(r#""a\x41\n""#).as_deref(), Ok("aA\n"));
        assert!(quoted(r#""\q""#).is_err() && quoted(r#""\'""#).is_err());
    }
}
