//! Where a closing brace is missing: a guess from the indentation, since the loading code notices
//! only at the end of the file, or at whatever stands there.

use crate::corefile::Token;
use std::sync::Arc;

/// A `{` that is never closed, and before which token its `}` seems to be missing.
pub(super) struct Unclosed {
    /// The index of the `{`.
    pub(super) open: usize,
    /// The index of the token before which the `}` is missing; the number of tokens at the end.
    pub(super) before: usize,
}

/// The file that a brace which was put in belongs to; no other token shares a line with it.
const NOWHERE: &str = "";

/// An open brace.
struct Open {
    /// Its index.
    at: usize,
    /// The column in which its line starts.
    column: u32,
    /// The column in which the first line of its block starts.
    inside: Option<u32>,
}

impl Open {
    /// Whether a line that starts here, with this text, is not in the block any more, as far as
    /// indentation tells.
    fn is_outside(&self, column: u32, text: &str) -> bool {
        match text {
            "}" => column < self.column,
            _ => self.inside.is_some_and(|inside| inside > self.column) && column <= self.column,
        }
    }
}

/// The first brace that is not closed where it should be.
pub(super) fn unclosed(tokens: &[Token]) -> Option<Unclosed> {
    let count = |brace| tokens.iter().filter(|token| token.text == brace).count();
    if count("{") <= count("}") {
        return None;
    }
    let mut open: Vec<Open> = Vec::new();
    let mut column = 1;
    for (at, token) in tokens.iter().enumerate() {
        let starts_line = at == 0 || !tokens[at - 1].shares_line_with(token);
        if starts_line {
            column = token.column;
            if let Some(inner) = open.last_mut() {
                if inner.is_outside(column, &token.text) {
                    return Some(Unclosed { open: inner.at, before: at });
                }
                inner.inside.get_or_insert(column);
            }
        }
        match token.text.as_str() {
            "{" => open.push(Open { at, column, inside: None }),
            "}" => drop(open.pop()),
            _ => {}
        }
    }
    open.last().map(|inner| Unclosed { open: inner.at, before: tokens.len() })
}

/// The tokens with the brace that is missing.
pub(super) fn closed(tokens: &[Token], missing: &Unclosed) -> Vec<Token> {
    let open = &tokens[missing.open];
    let brace = Token { text: "}".to_owned(), file: Arc::from(NOWHERE), ..open.clone() };
    let (before, behind) = tokens.split_at(missing.before);
    [before, &[brace], behind].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::tokens;

    /// The line of the brace, and the line before which its end is missing.
    fn lines(text: &str) -> Option<(u32, Option<u32>)> {
        let tokens = tokens(text.as_bytes(), &Arc::from("C"));
        let found = unclosed(&tokens)?;
        Some((tokens[found.open].line, tokens.get(found.before).map(|token| token.line)))
    }

    #[test]
    fn the_brace_that_is_not_closed_is_found_by_indentation() {
        let inner =
            ".:53 {\n  cache {\n    success 5\n  forward . 192.0.2.1\n}\na.test {\n  errors\n}\n";
        assert_eq!(lines(inner), Some((2, Some(4))));
        let last = ".:53 {\n  errors\n  cache {\n    success 5\n}\n";
        assert_eq!(lines(last), Some((3, Some(5))));
        let outer = "a.test {\n  errors\n\nb.test {\n  errors\n}\n";
        assert_eq!(lines(outer), Some((1, Some(4))));
        assert_eq!(lines(".:53 {\n  errors\n"), Some((1, None)));
        assert_eq!(lines(".:53 {\nerrors\n"), Some((1, None)), "without indentation");
    }

    #[test]
    fn what_is_closed_is_left_alone() {
        for text in [
            ".:53 {\n  cache {\n    success 5\n  }\n}\n",
            ".:53\n{\nerrors\ncache {\nsuccess 5\n}\n}\n",
            "a.test\n  errors\n",
            "a.test,\nb.test {\n  health :8080 { lameduck 5s\n  }\n}\n",
        ] {
            assert_eq!(lines(text), None, "{text}");
        }
    }
}
