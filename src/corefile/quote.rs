//! Go's `%q` for strings, as it stands in many of CoreDNS's error texts.

use std::fmt::Write;

/// `text` in double quotes with Go's escapes.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{b}' => quoted.push_str("\\v"),
            control if control.is_ascii_control() => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\x{:02x}", u32::from(control));
            }
            hidden if !is_printable(hidden) => {
                let _ = match u32::from(hidden) {
                    number @ 0..0x1_0000 => write!(quoted, "\\u{number:04x}"),
                    number => write!(quoted, "\\U{number:08x}"),
                };
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a letter is one that can be seen. Rust and Go agree on it: letters, marks, numbers, signs and
/// the plain space.
fn is_printable(letter: char) -> bool {
    // Behind another, so that a mark counts as what it is.
    let text = format!("a{letter}");
    letter.is_ascii() || text.escape_debug().eq(text.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_escaped_as_go_does() {
        assert_eq!(quote("a\"b\\c\n\u{1}é"), "\"a\\\"b\\\\c\\n\\x01é\"");
        assert_eq!(quote("\u{feff}\u{a0}\u{ad}\u{85}"), "\"\\ufeff\\u00a0\\u00ad\\u0085\"");
        assert_eq!(quote("e\u{301}☃\u{1f600}\u{e0001}"), "\"e\u{301}☃\u{1f600}\\U000e0001\"");
    }
}
