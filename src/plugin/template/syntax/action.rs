//! The action that is being read, token by token, and what Go says of a token that does not fit.
//!
//! Owns the line of what was read last. Knows no grammar but the end of an action.

use super::super::tokens::{Kind, Token};
use std::iter::Peekable;
use std::vec;

/// What is left of an action, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Action<'s> {
    tokens: Peekable<vec::IntoIter<Token>>,
    /// What Go's errors call the template.
    name: &'s str,
    /// The line that it begins on.
    began: usize,
    /// The line of what was read last.
    line: usize,
}

impl Action<'_> {
    /// Before the first action of a template, which Go's errors call `name`.
    pub(super) fn new(name: &str) -> Action<'_> {
        Action { tokens: Vec::new().into_iter().peekable(), name, began: 1, line: 1 }
    }

    /// Goes on with the next action.
    pub(super) fn begin(&mut self, tokens: Vec<Token>) {
        self.began = tokens.first().map_or(self.line, |token| token.line);
        self.tokens = tokens.into_iter().peekable();
    }

    /// Passes the text between two actions.
    pub(super) fn pass(&mut self, text: &str) {
        self.line += text.matches('\n').count();
    }

    /// The line of what was read last, from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The next token, also white space.
    pub(super) fn next(&mut self) -> Token {
        let end = Token { kind: Kind::End, text: "}}".to_owned(), line: self.line, column: 0 };
        let token = self.tokens.next().unwrap_or(end);
        self.line = token.line;
        token
    }

    /// The next token, when it is one that `is_wanted`.
    pub(super) fn next_if(&mut self, is_wanted: impl FnOnce(&Token) -> bool) -> Option<Token> {
        self.tokens.next_if(is_wanted)
    }

    /// The next token, white space left out.
    pub(super) fn next_solid(&mut self) -> Token {
        self.skip_space();
        self.next()
    }

    /// The next token, which stays; `None` when nothing is left.
    pub(super) fn ahead(&mut self) -> Option<&Token> {
        self.tokens.peek()
    }

    /// The kind of the next token, also white space.
    pub(super) fn peek(&mut self) -> Kind {
        self.ahead().map_or(Kind::End, |token| token.kind)
    }

    /// The kind of the next token, white space left out.
    pub(super) fn peek_solid(&mut self) -> Kind {
        self.skip_space();
        self.peek()
    }

    /// The next token's text when it is a keyword, else nothing; white space left out.
    pub(super) fn peek_keyword(&mut self) -> String {
        self.skip_space();
        let keyword = self.ahead().filter(|token| token.kind == Kind::Keyword);
        keyword.map(|token| token.text.clone()).unwrap_or_default()
    }

    /// Takes white space.
    pub(super) fn skip_space(&mut self) {
        while self.next_if(|token| token.kind == Kind::Space).is_some() {}
    }

    /// Takes the end of the action; the error is Go's.
    pub(super) fn end(&mut self, context: &str) -> Result<(), String> {
        match self.next_solid() {
            token if token.kind == Kind::End => Ok(()),
            token => Err(self.unexpected(&token, context)),
        }
    }

    /// Go's error about a token of this action.
    pub(super) fn unexpected(&self, token: &Token, context: &str) -> String {
        if token.kind != Kind::Wrong {
            return format!("unexpected {} in {context}", token.shown());
        }
        let started = format!(" started at {}:{}", self.name, self.began);
        match token.line == self.began {
            true => token.text.clone(),
            false if token.text.ends_with(" action") => format!("{}{started}", token.text),
            false => format!("{} in action{started}", token.text),
        }
    }
}
