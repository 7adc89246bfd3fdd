//! Text to tokens: caddy 1.1.4's state machine (spec: white space, comments, quotes, `\r`).
//!
//! Owns nothing but the cursor into the text; never fails, whatever the bytes. Its quirks decide
//! which token stands on which line, and so which Corefiles are accepted: they are kept on purpose.

use super::Token;
use std::sync::Arc;

/// The byte order mark that editors put first.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// All tokens of `text`, of which `file` is the name; none of them counts as imported.
pub fn tokens(text: &[u8], file: &Arc<str>) -> Vec<Token> {
    let text = decode(text);
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let mut lexer = Lexer { rest: text.chars(), at: 0, line: 1, line_at: 0 };
    let mut tokens = Vec::new();
    while let Some(Found { line, column, length, text }) = lexer.next() {
        tokens.push(Token { file: file.clone(), imported: false, line, column, length, text });
    }
    tokens
}

/// UTF-8 with every invalid octet replaced by U+FFFD (one each, as Go reads runes).
fn decode(text: &[u8]) -> String {
    let mut decoded = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        decoded.push_str(chunk.valid());
        decoded.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    decoded
}

struct Lexer<'t> {
    rest: std::str::Chars<'t>,
    /// How many characters were read.
    at: u32,
    line: u32,
    /// How many characters stand before this line.
    line_at: u32,
}

/// A token and where it stands.
struct Found {
    line: u32,
    column: u32,
    length: u32,
    text: String,
}

/// Where a token starts.
#[derive(Clone, Copy)]
struct Start {
    line: u32,
    column: u32,
    at: u32,
}

impl Start {
    /// The token that ends after so many characters.
    fn token(self, end: u32, text: String) -> Found {
        Found { line: self.line, column: self.column, length: end.saturating_sub(self.at), text }
    }
}

impl Lexer<'_> {
    fn letter(&mut self) -> Option<char> {
        let letter = self.rest.next()?;
        self.at = self.at.saturating_add(1);
        if letter == '\n' {
            self.line = self.line.saturating_add(1);
            self.line_at = self.at;
        }
        Some(letter)
    }

    /// At the letter that was just read.
    fn start(&self) -> Start {
        let column = self.at.saturating_sub(self.line_at);
        Start { line: self.line, column, at: self.at.saturating_sub(1) }
    }

    /// The next token with the place it starts at.
    fn next(&mut self) -> Option<Found> {
        let mut text = String::new();
        let mut start = self.start();
        let mut end = 0;
        // Forgotten when a token ends: in `foo#bar baz` the white space returns `foo`, and `baz`
        // is a token again.
        let mut comment = false;
        while let Some(letter) = self.letter() {
            if letter.is_whitespace() {
                if letter == '\r' {
                    // Dropped even inside a token, which it does not end.
                    continue;
                }
                if letter == '\n' {
                    comment = false;
                }
                if !text.is_empty() {
                    return Some(start.token(end, text));
                }
                continue;
            }
            if letter == '#' {
                comment = true;
            }
            if comment {
                continue;
            }
            if text.is_empty() {
                start = self.start();
                if letter == '"' {
                    return self.quoted(start);
                }
            }
            text.push(letter);
            end = self.at;
        }
        (!text.is_empty()).then(|| start.token(end, text))
    }

    /// The rest of a token whose opening quote has been read. The closing quote ends it at once;
    /// only `\"` is an escape; without a closing quote it is what was read, if anything.
    fn quoted(&mut self, start: Start) -> Option<Found> {
        let mut text = String::new();
        let mut escaped = false;
        while let Some(letter) = self.letter() {
            match letter {
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                '"' if !escaped => return Some(start.token(self.at, text)),
                '"' => {}
                _ if escaped => text.push('\\'),
                _ => {}
            }
            text.push(letter);
            escaped = false;
        }
        (!text.is_empty()).then(|| start.token(self.at, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(u32, String)> {
        tokens(text.as_bytes(), &Arc::from("Corefile"))
            .into_iter()
            .map(|token| (token.line, token.text))
            .collect()
    }

    fn words(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn white_space_of_every_kind_separates_and_lines_count() {
        assert_eq!(
            lines("a\u{a0}b\n\n c\t{\n}"),
            [(1, "a".into()), (1, "b".into()), (3, "c".into()), (3, "{".into()), (4, "}".into())]
        );
    }

    #[test]
    fn a_carriage_return_vanishes_even_inside_a_token() {
        assert_eq!(words("who\rami\r\nerrors\r\n"), ["whoami", "errors"]);
        assert_eq!(words("a\rb\rc"), ["abc"]);
    }

    #[test]
    fn a_comment_inside_a_token_ends_at_white_space() {
        assert_eq!(words("foo#bar baz # rest\nnext"), ["foo", "baz", "next"]);
        assert_eq!(words("# all of it { }"), Vec::<String>::new());
    }

    #[test]
    fn quotes_span_lines_and_know_one_escape() {
        assert_eq!(words(r#""a \"b\" \n \\" c"#), [r#"a "b" \n \\"#, "c"]);
        assert_eq!(lines("x \"a\nb\" y"), [(1, "x".into()), (1, "a\nb".into()), (2, "y".into())]);
        assert_eq!(words("\"1.1.1.1\"2.2.2.2 \"\" a\"b"), ["1.1.1.1", "2.2.2.2", "", "a\"b"]);
        assert_eq!(words("a \"open"), ["a", "open"]);
        assert_eq!(words("a \""), ["a"]);
    }

    #[test]
    fn tokens_know_the_columns_and_lengths_that_they_have_in_the_file() {
        let found = tokens("\u{feff}ä b\u{a0}\"c d\" e#f\n\tgh\r\n".as_bytes(), &Arc::from(""));
        let places: Vec<_> = found.iter().map(|one| (one.line, one.column, one.length)).collect();
        assert_eq!(places, [(1, 1, 1), (1, 3, 1), (1, 5, 5), (1, 11, 1), (2, 2, 2)]);
    }

    #[test]
    fn a_byte_order_mark_and_invalid_octets_are_tolerated() {
        assert_eq!(words("\u{feff}a"), ["a"]);
        let found = tokens(b"a\xff\xfeb", &Arc::from("Corefile"));
        assert_eq!(found[0].text, "a\u{fffd}\u{fffd}b");
    }
}
