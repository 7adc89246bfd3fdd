//! One logical line of a zone file: its fields, and where they stand.
//!
//! Owns blanks, comments, parentheses and quotes, and how miekg/dns names a place: the line from 1, and
//! how many octets of it were read when the field was known to end. Knows nothing of what fields mean.

use crate::corefile::quote;
use std::fmt::Write;

/// One word or quoted string; its escapes are still in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'t> {
    /// As it stands, without quotes; what is wrong with the line, where it ends by that.
    pub(super) text: &'t str,
    /// It stood in quotes.
    pub(super) is_quoted: bool,
    /// It is no field: the line ends in a mistake.
    pub(super) is_fault: bool,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

impl Field<'_> {
    /// An error about this field.
    pub(super) fn wrong(&self, what: &str) -> String {
        told(what, if self.is_quoted { "\"" } else { self.text }, self.place)
    }

    /// An error about what is missing behind this field.
    pub(super) fn wrong_behind(&self, what: &str) -> String {
        told(what, " ", self.place)
    }

    /// Whether it is a word, and no string or mistake.
    pub(super) fn is_word(&self) -> bool {
        !self.is_quoted && !self.is_fault
    }
}

/// The first line that is not empty.
#[derive(Debug)]
pub(super) struct Line<'t> {
    pub(super) fields: Vec<Field<'t>>,
    /// It begins with white space: the owner is left out.
    pub(super) is_indented: bool,
    /// There is white space behind the last field.
    pub(super) has_blank_end: bool,
    /// It ends within quotes.
    pub(super) is_open: bool,
    end: Place,
}

impl<'t> Line<'t> {
    /// Reads the first line with anything in it; what is behind it is not looked at.
    pub(super) fn read(text: &'t str) -> Line<'t> {
        let (mut line, mut column, mut depth) = (1, 0, 0_usize);
        let mut found = Line {
            fields: Vec::new(),
            is_indented: text.starts_with([' ', '\t']),
            has_blank_end: false,
            is_open: false,
            end: Place { line, column },
        };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let behind = &rest[first.len_utf8()..];
            column += first.len_utf8();
            match first {
                '\n' if depth == 0 && !found.fields.is_empty() => {
                    column -= 1;
                    break;
                }
                '\n' => {
                    (line, column) = (line + 1, 0);
                    if found.fields.is_empty() {
                        found.is_indented = behind.starts_with([' ', '\t']);
                    }
                    rest = behind;
                }
                ' ' | '\t' => {
                    found.has_blank_end = true;
                    rest = behind;
                }
                '(' => {
                    depth += 1;
                    rest = behind;
                }
                ')' if depth == 0 => {
                    found.fault("extra closing brace", Place { line, column });
                    return found;
                }
                ')' => {
                    depth -= 1;
                    rest = behind;
                }
                '\r' => rest = behind,
                ';' => {
                    let end = behind.find('\n').unwrap_or(behind.len());
                    column += end;
                    rest = &behind[end..];
                }
                '"' => {
                    let place = Place { line, column };
                    found.has_blank_end = false;
                    let Some(end) = end_of(behind, |letter| letter == '"') else {
                        found.is_open = true;
                        return found;
                    };
                    found.push(&behind[..end], true, place);
                    let text = &behind[..=end];
                    line += text.matches('\n').count();
                    column = match text.rsplit_once('\n') {
                        Some((_, last)) => last.len(),
                        None => column + text.len(),
                    };
                    rest = &behind[end + 1..];
                }
                _ => {
                    let is_end = |letter: char| {
                        letter.is_ascii_whitespace() || matches!(letter, ';' | '"' | '(' | ')')
                    };
                    let end = end_of(rest, is_end).unwrap_or(rest.len());
                    column += end - first.len_utf8();
                    let is_delimited = rest[end..].starts_with([' ', '\t', ';', '"', '(', ')']);
                    let place = Place { line, column: column + usize::from(is_delimited) };
                    found.has_blank_end = false;
                    found.push(&rest[..end], false, place);
                    rest = &rest[end..];
                }
            }
        }
        if depth > 0 {
            found.fault("unbalanced brace", Place { line, column });
        }
        found.end = Place { line, column };
        found
    }

    /// An error about the end of the line.
    pub(super) fn end(&self, what: &str) -> String {
        told(what, "\n", self.end)
    }

    fn push(&mut self, text: &'t str, is_quoted: bool, place: Place) {
        self.fields.push(Field { text, is_quoted, is_fault: false, place });
    }

    fn fault(&mut self, text: &'t str, place: Place) {
        self.fields.push(Field { text, is_quoted: false, is_fault: true, place });
    }
}

/// Where the first letter stands that is an end and not escaped.
fn end_of(text: &str, is_end: impl Fn(char) -> bool) -> Option<usize> {
    let mut is_escaped = false;
    text.find(|letter: char| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        is_escaped = letter == '\\';
        is_end(letter)
    })
}

fn told(what: &str, token: &str, place: Place) -> String {
    let mut text = format!("{what}: ");
    for letter in quote(token).chars() {
        // Into a String nothing fails.
        let _ = match u32::from(letter) {
            0..0x80 => write!(text, "{letter}"),
            number @ 0x80..0x1_0000 => write!(text, "\\u{number:04x}"),
            number => write!(text, "\\U{number:08x}"),
        };
    }
    let Place { line, column } = place;
    let _ = write!(text, " at line: {line}:{column}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<(&str, usize, usize)> {
        let line = Line::read(text);
        line.fields.iter().map(|field| (field.text, field.place.line, field.place.column)).collect()
    }

    #[test]
    fn a_field_stands_where_it_was_known_to_end() {
        assert_eq!(places("ab c"), [("ab", 1, 3), ("c", 1, 4)]);
        assert_eq!(places("\n\nab\tc \nd"), [("ab", 3, 3), ("c", 3, 5)]);
        assert_eq!(places("a \"b c\" d;e"), [("a", 1, 2), ("b c", 1, 3), ("d", 1, 10)]);
        assert_eq!(places("a (b\n c) d"), [("a", 1, 2), ("b", 1, 4), ("c", 2, 3), ("d", 2, 5)]);
        assert_eq!(places("a (b"), [("a", 1, 2), ("b", 1, 4), ("unbalanced brace", 1, 4)]);
        assert_eq!(places("a ) b"), [("a", 1, 2), ("extra closing brace", 1, 3)]);
        assert_eq!(places("\u{e9} a\\ b"), [("\u{e9}", 1, 3), ("a\\ b", 1, 7)]);
    }

    #[test]
    fn what_is_not_ascii_is_escaped_in_errors() {
        let line = Line::read("\u{e9}\u{1f600}\\");
        let error = line.fields[0].wrong("bad");
        assert_eq!(error, "bad: \"\\u00e9\\U0001f600\\\\\" at line: 1:7");
    }
}
