//! The token reader of plugin setups: caddy's Dispenser (spec/coredns.md §1.2).

use super::{CorefileError, Token};

/// Walks the tokens of one directive. Starts before the first token: call [`Dispenser::next`].
#[derive(Debug, Clone)]
pub struct Dispenser<'t> {
    tokens: &'t [Token],
    cursor: usize,
    nesting: u32,
}

impl<'t> Dispenser<'t> {
    /// A reader before the first of `tokens`.
    pub fn new(tokens: &'t [Token]) -> Dispenser<'t> {
        Dispenser { tokens, cursor: 0, nesting: 0 }
    }

    /// The next token, on any line.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> bool {
        let _ = (self.tokens, self.cursor, self.nesting);
        todo!()
    }

    /// The next token if it is on the same line.
    pub fn next_arg(&mut self) -> bool {
        todo!()
    }

    /// The next line of the block that opens on this line, or of the one that is open.
    pub fn next_block(&mut self) -> bool {
        todo!()
    }

    /// The current token's text; "" before the first.
    pub fn val(&self) -> &'t str {
        todo!()
    }

    /// The current token's line.
    pub fn line(&self) -> u32 {
        todo!()
    }

    /// The current token's file.
    pub fn file(&self) -> &'t str {
        todo!()
    }

    /// All remaining arguments of this line, stopping before `{`.
    pub fn remaining_args(&mut self) -> Vec<&'t str> {
        todo!()
    }

    /// `FILE:LINE - Error during parsing: MESSAGE`.
    pub fn err(&self, message: impl AsRef<str>) -> CorefileError {
        let _ = message.as_ref();
        todo!()
    }

    /// A message that CoreDNS prints without a place: the text stays bare after the place,
    /// `FILE:LINE - MESSAGE`.
    pub fn plain_err(&self, message: impl AsRef<str>) -> CorefileError {
        let _ = message.as_ref();
        todo!()
    }

    /// `Wrong argument count or unexpected line ending after 'VAL'`.
    pub fn arg_err(&self) -> CorefileError {
        todo!()
    }

    /// `FILE:LINE - Syntax error: Unexpected token 'VAL', expecting 'X'`.
    pub fn syntax_err(&self, expecting: &str) -> CorefileError {
        let _ = expecting;
        todo!()
    }
}
