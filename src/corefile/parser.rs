//! Tokens to server blocks: keys, snippets, imports, directives (spec/coredns.md §1.3 to §1.5).

use super::{CorefileError, Surroundings, Token};

/// A directive of one block with all its tokens, the word first. A word that occurs several times
/// has its tokens joined (spec/coredns.md §1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The word.
    pub word: String,
    /// All tokens, the word itself first.
    pub tokens: Vec<Token>,
}

/// One server block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBlock {
    /// The keys as written, environment replaced.
    pub keys: Vec<Token>,
    /// The directives in order of first appearance.
    pub directives: Vec<Directive>,
}

/// A parsed Corefile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// The blocks in file order, snippets left out.
    pub blocks: Vec<ServerBlock>,
    /// Lines to log at WARNING, such as an import glob without match.
    pub warnings: Vec<String>,
}

/// Parses a Corefile. `file` is the path that errors name and that relative imports start from;
/// `known` tells whether a directive word exists (an unknown one is an error); `reload` passes
/// `|_| true`.
pub fn parse(
    text: &[u8],
    file: &str,
    known: &dyn Fn(&str) -> bool,
    surroundings: &dyn Surroundings,
) -> Result<Tree, CorefileError> {
    let _ = (text, file, known, surroundings);
    todo!()
}

/// The JSON that `reload` hashes with SHA-512 (spec/coredns.md §4.4).
pub fn fingerprint(tree: &Tree) -> Vec<u8> {
    let _ = tree;
    todo!()
}
