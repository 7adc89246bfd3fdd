//! The token reader of plugin setups: caddy's Dispenser.
//!
//! Owns the cursor and the nesting; knows the directive's word, and so writes `plugin/WORD: ` into
//! every error. Never goes beyond the directive's own tokens.

use super::{CorefileError, Token};

/// Walks the tokens of one directive. Starts before the first token: call [`Dispenser::next`].
#[derive(Debug, Clone)]
pub struct Dispenser<'t> {
    word: &'t str,
    tokens: &'t [Token],
    /// How many tokens have been reached: the current one is the last of them.
    reached: usize,
    nesting: u32,
}

impl<'t> Dispenser<'t> {
    /// A reader before the first of the `tokens` of the directive `word`.
    pub fn new(word: &'t str, tokens: &'t [Token]) -> Dispenser<'t> {
        Dispenser { word, tokens, reached: 0, nesting: 0 }
    }

    /// The next token, on any line.
    #[allow(clippy::should_implement_trait)] // It is no iterator: the token is asked for by `val`.
    pub fn next(&mut self) -> bool {
        let more = self.reached < self.tokens.len();
        self.reached += usize::from(more);
        more
    }

    /// The next token if it is on the same line.
    pub fn next_arg(&mut self) -> bool {
        let same_line = match (self.current(), self.tokens.get(self.reached)) {
            (None, Some(_)) => true,
            (Some(now), Some(next)) => now.shares_line_with(next),
            (_, None) => false,
        };
        self.reached += usize::from(same_line);
        same_line
    }

    /// The next line of the block that opens on this line, or of the one that is open. A `{` of
    /// the block must stand on this line, and `{ }` is no block. A block inside the block is read
    /// like its lines; each closing brace is an end of its own.
    pub fn next_block(&mut self) -> bool {
        if self.nesting > 0 {
            // Without a closing brace (one that came out of the environment opened the block) the
            // tokens' end closes it.
            let more = self.next();
            if !more || self.val() == "}" {
                self.nesting -= 1;
                return false;
            }
            if self.val() != "{" {
                return true;
            }
            // A block in the block: its brace must stand on the line before it, as the outer one's.
            self.reached -= 1;
        }
        if !self.next_arg() {
            return false;
        }
        if self.val() != "{" {
            self.reached -= 1;
            return false;
        }
        if !self.next() || self.val() == "}" {
            return false;
        }
        self.nesting += 1;
        true
    }

    /// The current token's text; "" before the first.
    pub fn val(&self) -> &'t str {
        self.current().map_or("", |token| &token.text)
    }

    /// All remaining arguments of this line, stopping before `{`.
    pub fn remaining_args(&mut self) -> Vec<&'t str> {
        let mut arguments = Vec::new();
        while self.next_arg() {
            if self.val() == "{" {
                self.reached -= 1;
                break;
            }
            arguments.push(self.val());
        }
        arguments
    }

    /// `plugin/WORD: FILE:LINE - Error during parsing: MESSAGE`.
    pub fn err(&self, message: impl AsRef<str>) -> CorefileError {
        self.about(match self.place() {
            Some(token) => CorefileError::at(token, message).in_plugin(self.word),
            None => CorefileError::unplaced(message.as_ref()),
        })
    }

    /// A message that CoreDNS prints without a place: its text stays whole behind ours,
    /// `FILE:LINE - plugin/WORD: MESSAGE`.
    pub fn plain_err(&self, message: impl AsRef<str>) -> CorefileError {
        let message = message.as_ref();
        let prefix = format!("plugin/{}: ", self.word);
        let message = message.strip_prefix(&prefix).unwrap_or(message);
        self.about(match self.place() {
            Some(token) => CorefileError::bare(token, format!("{prefix}{message}")),
            None => CorefileError::unplaced(message),
        })
    }

    /// A message that CoreDNS prints without place and plugin, for it comes up when the server starts:
    /// `FILE:LINE - MESSAGE`.
    pub fn start_err(&self, message: impl AsRef<str>) -> CorefileError {
        self.about(match self.place() {
            Some(token) => CorefileError::bare(token, message),
            None => CorefileError::unplaced(message.as_ref()),
        })
    }

    /// `Wrong argument count or unexpected line ending after 'VAL'`, or
    /// `Unexpected token '{', expecting argument`.
    pub fn arg_err(&self) -> CorefileError {
        match self.val() {
            "{" => self.err("Unexpected token '{', expecting argument"),
            value => {
                self.err(format!("Wrong argument count or unexpected line ending after '{value}'"))
            }
        }
    }

    /// `plugin/WORD: FILE:LINE - Syntax error: Unexpected token 'VAL', expecting 'X'`.
    pub fn syntax_err(&self, expecting: &str) -> CorefileError {
        self.about(match self.place() {
            Some(token) => CorefileError::syntax(token, self.val(), expecting).in_plugin(self.word),
            None => CorefileError::unplaced(format!("expecting '{expecting}'")),
        })
    }

    /// `FILE:LINE - plugin/WORD: this plugin can only be used once per Server Block`.
    pub fn once_err(&self) -> CorefileError {
        self.plain_err("this plugin can only be used once per Server Block")
    }

    fn current(&self) -> Option<&'t Token> {
        self.reached.checked_sub(1).and_then(|index| self.tokens.get(index))
    }

    /// Where errors point: the current token, or the first when none was reached.
    fn place(&self) -> Option<&'t Token> {
        self.current().or(self.tokens.first())
    }

    /// The same error, about the token of this line that it names.
    fn about(&self, error: CorefileError) -> CorefileError {
        let read = &self.tokens[..self.reached];
        let start = read.windows(2).rposition(|pair| !pair[0].shares_line_with(&pair[1]));
        error.about(&read[start.map_or(0, |before| before + 1)..], read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer;
    use super::*;
    use std::sync::Arc;

    fn tokens(text: &str) -> Vec<Token> {
        lexer::tokens(text.as_bytes(), &Arc::from("Corefile"))
    }

    #[test]
    fn arguments_end_with_the_line_or_before_a_brace() {
        let tokens = tokens("cache 30 \"a\nb\" c {\n success 5\n}\ncache 7");
        let mut dispenser = Dispenser::new("cache", &tokens);
        assert!(dispenser.next());
        assert_eq!(dispenser.remaining_args(), ["30", "a\nb", "c"]);
        assert!(dispenser.next_block());
        assert_eq!((dispenser.val(), dispenser.place().unwrap().line), ("success", 3));
        assert!(dispenser.next_arg());
        assert_eq!(dispenser.val(), "5");
        assert!(!dispenser.next_arg());
        assert!(!dispenser.next_block());
        assert!(dispenser.next());
        assert_eq!(dispenser.remaining_args(), ["7"]);
        assert!(!dispenser.next());
        assert_eq!(dispenser.val(), "7");
    }

    #[test]
    fn an_empty_block_is_swallowed_and_a_brace_on_the_next_line_is_no_block() {
        let empty = tokens("debug { }");
        let mut dispenser = Dispenser::new("debug", &empty);
        assert!(dispenser.next() && !dispenser.next_block() && !dispenser.next());
        let alone = tokens("bind a {");
        let mut dispenser = Dispenser::new("bind", &alone);
        assert!(dispenser.next() && dispenser.next_arg() && !dispenser.next_block());
        let below = tokens("forward .\n{\n max_fails 3\n}");
        let mut dispenser = Dispenser::new("forward", &below);
        assert!(dispenser.next());
        assert_eq!(dispenser.remaining_args(), ["."]);
        assert!(!dispenser.next_block());
        assert!(dispenser.next());
        assert_eq!(
            dispenser.arg_err().text,
            "plugin/forward: Corefile:2 - Error during parsing: Unexpected token '{', expecting argument"
        );
    }

    #[test]
    fn a_block_in_a_block_ends_at_a_brace_of_its_own() {
        let nested = tokens("hosts {\n a {\n b\n }\n c\n}");
        let mut dispenser = Dispenser::new("hosts", &nested);
        dispenser.next();
        for word in ["a", "b"] {
            assert!(dispenser.next_block());
            assert_eq!(dispenser.val(), word);
        }
        assert!(!dispenser.next_block());
        assert!(dispenser.next_block());
        assert_eq!(dispenser.val(), "c");
        assert!(!dispenser.next_block() && !dispenser.next());
        // On a line of its own the brace opens nothing: the block is over before it.
        let below = tokens("hosts {\n a\n {\n b\n }\n}");
        let mut dispenser = Dispenser::new("forward", &below);
        dispenser.next();
        assert!(dispenser.next_block() && !dispenser.next_block());
        assert!(dispenser.next());
        assert_eq!(dispenser.val(), "{");
    }

    #[test]
    fn a_block_that_never_closes_ends_with_the_tokens() {
        let open = tokens("hosts {\n 1.2.3.4 a");
        let mut dispenser = Dispenser::new("hosts", &open);
        dispenser.next();
        let mut lines = 0;
        while dispenser.next_block() {
            lines += 1;
            assert!(lines < 5);
        }
    }

    #[test]
    fn errors_say_plugin_and_place() {
        let found = tokens("\n\ncache a");
        let mut dispenser = Dispenser::new("cache", &found);
        let before = dispenser.plain_err("nothing");
        assert_eq!(before.text, "Corefile:3 - plugin/cache: nothing");
        dispenser.next();
        dispenser.next();
        assert_eq!(
            dispenser.arg_err().text,
            "plugin/cache: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'a'"
        );
        assert_eq!(
            dispenser.syntax_err("x").text,
            "plugin/cache: Corefile:3 - Syntax error: Unexpected token 'a', expecting 'x'"
        );
        assert_eq!(dispenser.plain_err("plugin/cache: x").text, "Corefile:3 - plugin/cache: x");
        assert_eq!(dispenser.err("x").place.unwrap().line, 3);
    }
}
