//! What is wrong with a Corefile, where, in CoreDNS's words.

/// A located error. Its `Display` is CoreDNS's text: `FILE:LINE - Error during parsing: …` where
/// CoreDNS says the place, else the bare message with ours in front.
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
