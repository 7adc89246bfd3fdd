//! The Corefile language: text to tree, with file and line, as Caddy 1
//! reads it.
//!
//! Owns the lexer, the parser, server keys, the token reader that every plugin's setup uses, and
//! Go's number and duration syntax. Never knows what a directive means; reads files only through
//! [`Surroundings`].

mod cidr;
mod dispenser;
mod duration;
mod environment;
mod error;
mod fingerprint;
mod glob;
mod key;
mod lexer;
mod memory;
mod parser;
mod quote;

#[cfg(test)]
mod tests;

pub use cidr::{Network, NotANetwork};
pub use dispenser::Dispenser;
pub use duration::{format_duration, parse_duration, parse_integer, parse_unsigned};
pub use error::{CorefileError, file_error_text, system_error_text};
pub use fingerprint::fingerprint;
pub use glob::glob_matches;
pub use key::{KeyTransport, ServerKey, has_preferred_syntax, normalise_zone, parse_keys};
pub use lexer::tokens;
pub use memory::MemorySurroundings;
pub use parser::{Directive, ServerBlock, Tree, parse, parse_all, parse_tokens};
pub use quote::quote;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One token with the place that errors name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The file that an error names: the path given with `-conf`, or the imported file's.
    pub file: Arc<str>,
    /// True for tokens of imported files: only those carry their path in the reload fingerprint.
    pub imported: bool,
    /// The line it starts on, from 1.
    pub line: u32,
    /// The column it starts in, in characters from 1.
    pub column: u32,
    /// How many characters of the file it takes, quotes included; its text may be longer or shorter.
    pub length: u32,
    /// The text, environment already replaced.
    pub text: String,
}

/// A stretch of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file as its tokens name it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column, in characters from 1.
    pub column: u32,
    /// How many characters, from there on.
    pub length: u32,
}

impl Token {
    /// Where it stands.
    pub fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line, column: self.column, length: self.length }
    }

    /// Whether `next`, the token behind it, stands on the line that this one ends on.
    pub fn shares_line_with(&self, next: &Token) -> bool {
        self.file == next.file && self.imported == next.imported && self.last_line() == next.line
    }

    /// The line it ends on: quoted ones may span several.
    fn last_line(&self) -> u32 {
        let breaks = self.text.bytes().filter(|&byte| byte == b'\n').count();
        self.line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX))
    }
}

/// What lies outside the text: files, the environment, the node's interfaces. The only way in for
/// `corefile`, `plugin` and `engine`; tests give their own.
pub trait Surroundings: Send + Sync {
    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Something that changes when the file does: (modification time in nanoseconds, size).
    fn stamp(&self, path: &Path) -> io::Result<(u128, u64)>;
    /// The paths that match a pattern with `*` and `?`, in lexical order.
    fn glob(&self, pattern: &Path) -> Vec<PathBuf>;
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The addresses of a network interface, IPv6 link-local ones with `%interface`; `None` when
    /// there is no such interface.
    fn interface(&self, name: &str) -> Option<Vec<String>>;
    /// The node's host name.
    fn hostname(&self) -> String;
    /// The addresses of a host, at least one, asked at `servers`, or as the system asks when there
    /// are none. Takes bounded time; the error is Go's text (`lookup a.test: no such host`).
    fn resolve(&self, host: &str, servers: &[SocketAddr]) -> Result<Vec<IpAddr>, String>;
}
