//! What is wrong with a Corefile, where, in CoreDNS's words.

use super::Token;
use std::io;

/// A located error. Its `Display` is CoreDNS's text: `FILE:LINE - Error during parsing: …` where
/// CoreDNS says the place, else the bare message with ours in front (`FILE:LINE - …`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CorefileError {
    /// The whole text for the operator.
    pub text: String,
    /// The file, when known.
    pub file: Option<String>,
    /// The line from 1, when known.
    pub line: Option<u32>,
}

impl CorefileError {
    /// At `token`, which CoreDNS names: `FILE:LINE - Error during parsing: MESSAGE`.
    pub fn at(token: &Token, message: impl AsRef<str>) -> CorefileError {
        CorefileError::placed(token, format_args!("Error during parsing: {}", message.as_ref()))
    }

    /// At `token`, which CoreDNS does not name: `FILE:LINE - MESSAGE`.
    pub fn bare(token: &Token, message: impl AsRef<str>) -> CorefileError {
        CorefileError::placed(token, format_args!("{}", message.as_ref()))
    }

    /// At `token`: `FILE:LINE - Syntax error: Unexpected token 'VAL', expecting 'X'`.
    pub fn syntax(token: &Token, found: &str, expecting: &str) -> CorefileError {
        CorefileError::placed(
            token,
            format_args!("Syntax error: Unexpected token '{found}', expecting '{expecting}'"),
        )
    }

    /// Without a place.
    pub fn unplaced(message: impl Into<String>) -> CorefileError {
        CorefileError { text: message.into(), file: None, line: None }
    }

    fn placed(token: &Token, message: std::fmt::Arguments<'_>) -> CorefileError {
        CorefileError {
            text: format!("{}:{} - {message}", token.file, token.line),
            file: Some(token.file.to_string()),
            line: Some(token.line),
        }
    }

    /// The same error with `plugin/WORD: ` in front, as CoreDNS marks a plugin's errors.
    pub fn in_plugin(mut self, word: &str) -> CorefileError {
        self.text = format!("plugin/{word}: {}", self.text);
        self
    }
}

/// A system error in Go's words: `no such file or directory`, without Rust's number behind it.
pub fn system_error_text(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return "no such file or directory".to_owned();
    }
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_read_like_go() {
        assert_eq!(
            system_error_text(&io::Error::from_raw_os_error(2)),
            "no such file or directory"
        );
        assert_eq!(system_error_text(&io::Error::from_raw_os_error(13)), "permission denied");
    }
}
