//! Go's `html`, `js` and `urlquery`: texts made safe for what they are put into.
//!
//! Owns the three tables. What comes out is six times as long as what went in at most.

use std::fmt::Write;

/// For HTML, attributes included.
pub(super) fn html(text: &str) -> String {
    each(text, |letter, out| match letter {
        '"' => out.push_str("&#34;"),
        '\'' => out.push_str("&#39;"),
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '\0' => out.push('\u{fffd}'),
        letter => out.push(letter),
    })
}

/// For a string of JavaScript.
pub(super) fn js(text: &str) -> String {
    each(text, |letter, out| match letter {
        '\\' | '\'' | '"' => out.extend(['\\', letter]),
        '<' | '>' | '&' | '=' | '\0'..='\x1f' => {
            // Into a String nothing fails.
            let _ = write!(out, "\\u{:04X}", u32::from(letter));
        }
        letter => out.push(letter),
    })
}

/// For a value in a URL's query.
pub(super) fn url_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(octet));
            }
            b' ' => out.push('+'),
            octet => {
                let _ = write!(out, "%{octet:02X}");
            }
        }
    }
    out
}

fn each(text: &str, write: impl Fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|letter| write(letter, &mut out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_as_go_escapes_them() {
        assert_eq!(html("a<b>&\"'\0"), "a&lt;b&gt;&amp;&#34;&#39;\u{fffd}");
        assert_eq!(js("a<b>&='\"\\\n"), r#"a\u003Cb\u003E\u0026\u003D\'\"\\\u000A"#);
        assert_eq!(url_query("a b&c/~\u{e9}"), "a+b%26c%2F~%C3%A9");
    }
}
