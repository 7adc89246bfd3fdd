//! What is wrong with a Corefile, where, in CoreDNS's words.
//!
//! Owns which token of a line an error is about. Never changes CoreDNS's text for that.

use super::{Place, Token, quote};
use std::io;
use std::path::Path;

/// A located error. Its `Display` is CoreDNS's text: `FILE:LINE - Error during parsing: …` where
/// CoreDNS says the place, else the bare message with ours in front (`FILE:LINE - …`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CorefileError {
    /// The whole text for the operator.
    pub text: String,
    /// What is wrong, without the place: `plugin/WORD: …`.
    pub message: String,
    /// The word or words that are wrong, when known. Its line may be another than the text's, where
    /// words span lines.
    pub place: Option<Place>,
}

impl CorefileError {
    /// At `token`, which CoreDNS names: `FILE:LINE - Error during parsing: MESSAGE`.
    pub fn at(token: &Token, message: impl AsRef<str>) -> CorefileError {
        CorefileError::placed(token, "Error during parsing: ", message.as_ref())
    }

    /// At `token`, which CoreDNS does not name: `FILE:LINE - MESSAGE`.
    pub fn bare(token: &Token, message: impl AsRef<str>) -> CorefileError {
        CorefileError::placed(token, "", message.as_ref())
    }

    /// At `token`: `FILE:LINE - Syntax error: Unexpected token 'VAL', expecting 'X'`.
    pub fn syntax(token: &Token, found: &str, expecting: &str) -> CorefileError {
        let message = format!("Syntax error: Unexpected token '{found}', expecting '{expecting}'");
        CorefileError::placed(token, "", &message)
    }

    /// Without a place.
    pub fn unplaced(message: impl Into<String>) -> CorefileError {
        let text = message.into();
        CorefileError { message: text.clone(), text, place: None }
    }

    fn placed(token: &Token, kind: &str, message: &str) -> CorefileError {
        CorefileError {
            text: format!("{}:{} - {kind}{message}", token.file, token.line),
            message: message.to_owned(),
            place: Some(token.place()),
        }
    }

    /// The same error with `plugin/WORD: ` in front, as CoreDNS marks a plugin's errors.
    pub fn in_plugin(mut self, word: &str) -> CorefileError {
        self.text = format!("plugin/{word}: {}", self.text);
        // CoreDNS's text may have it twice.
        let prefix = format!("plugin/{word}: ");
        if !self.message.starts_with(&prefix) {
            self.message.insert_str(0, &prefix);
        }
        self
    }

    /// The same error, about that one of `line`'s tokens which its message names; `all` are the
    /// directive's tokens up to there, for what is said behind its block.
    pub fn about(mut self, line: &[Token], all: &[Token]) -> CorefileError {
        if let Some(token) = accused(&self.message, line, all) {
            self.place = Some(token.place());
        }
        self
    }
}

/// The token that a message names: in quotes or at its end; behind a block, also by its word.
fn accused<'t>(message: &str, line: &'t [Token], all: &'t [Token]) -> Option<&'t Token> {
    let is_named = |token: &&Token| {
        let text = token.text.as_str();
        !text.is_empty()
            && (message.contains(&format!("'{text}'"))
                || message.contains(&quote(text))
                || message.strip_suffix(text).is_some_and(|start| start.ends_with(": ")))
    };
    if let Some(token) = line.iter().rfind(is_named) {
        return Some(token);
    }
    let is_brace = line.last().is_some_and(|token| ["{", "}"].contains(&&*token.text));
    if !is_brace {
        return None;
    }
    let words: Vec<&str> = message.split([' ', ',', '(', ')']).collect();
    let is_word = |token: &&Token| {
        token.text.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && words.contains(&&*token.text)
    };
    all.get(1..)?.iter().rfind(is_word)
}

/// A system error in Go's words: `no such file or directory`, without Rust's number behind it.
pub fn system_error_text(error: &io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => return "no such file or directory".to_owned(),
        // Without a number it was refused before the system saw it: a path with a NUL in it.
        (io::ErrorKind::InvalidInput, None) => return "invalid argument".to_owned(),
        _ => {}
    }
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// Why a file could not be read, in Go's words: `open PATH: no such file or directory`.
pub fn file_error_text(path: &Path, error: &io::Error) -> String {
    // A folder can be opened, but not read.
    let call = if error.kind() == io::ErrorKind::IsADirectory { "read" } else { "open" };
    format!("{call} {}: {}", path.display(), system_error_text(error))
}

#[cfg(test)]
mod tests {
    use super::super::tokens;
    use super::*;
    use std::sync::Arc;

    fn named(corefile: &str, message: &str) -> (u32, u32) {
        let tokens = tokens(corefile.as_bytes(), &Arc::from("Corefile"));
        let last = tokens.last().unwrap();
        let from = tokens.iter().position(|token| token.line == last.line).unwrap();
        let error = CorefileError::at(last, message).about(&tokens[from..], &tokens);
        let place = error.place.unwrap();
        (place.line, place.column)
    }

    #[test]
    fn an_error_is_about_the_word_that_it_names() {
        let line = "forward . foo 1.1.1.1";
        assert_eq!(named(line, "not an IP address or file: \"foo\""), (1, 11));
        assert_eq!(named("success 1 -5 7", "cache min TTL can not be negative: -5"), (1, 11));
        assert_eq!(
            named(line, "Wrong argument count or unexpected line ending after 'foo'"),
            (1, 11)
        );
        assert_eq!(named(line, "something else"), (1, 15));
        let block = "forward . 1.1.1.1 {\n expire 10s\n max_age 5s\n}";
        assert_eq!(named(block, "max_age (5s) must not be less than expire (10s)"), (3, 2));
    }

    #[test]
    fn system_errors_read_like_go() {
        assert_eq!(
            system_error_text(&io::Error::from_raw_os_error(2)),
            "no such file or directory"
        );
        assert_eq!(system_error_text(&io::Error::from_raw_os_error(13)), "permission denied");
        let nul = std::ffi::CString::new("a\0").map_err(io::Error::from).unwrap_err();
        assert_eq!(system_error_text(&nul), "invalid argument");
        let folder = io::ErrorKind::IsADirectory.into();
        assert_eq!(file_error_text(Path::new("/etc"), &folder), "read /etc: is a directory");
    }
}
