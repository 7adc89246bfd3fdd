//! What DNS over HTTPS fixes (RFC 8484), in one place for those that serve it and those that ask.
//!
//! Owns two words; speaks no HTTP.

/// The path of queries: CoreDNS's, and what everybody takes where none is given.
pub const PATH: &str = "/dns-query";

/// The media type of a DNS message as the body of a request or a response (§6).
pub const MESSAGE_TYPE: &str = "application/dns-message";
