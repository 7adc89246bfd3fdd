//! `forward`: which upstreams a query goes to, and what their responses mean (spec/coredns.md §3).
//!
//! Owns the directive's options and decisions: matching, policy, verdict on a response, what is
//! tried next. The connections, timers and health state are `net::upstream`'s.

use super::Setup;
use crate::corefile::CorefileError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The upstreams and options of one `forward` directive. `net::upstream` runs it.
#[derive(Debug)]
pub struct Upstreams {
    /// The upstreams in Corefile order.
    pub addresses: Vec<SocketAddr>,
}

/// A question for upstreams: what the engine waits for.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Whom to ask, and how.
    pub upstreams: Arc<Upstreams>,
}

/// How an exchange ended.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// The response's bytes as received and checked, or the error in CoreDNS's words.
    pub outcome: Result<Arc<[u8]>, ExchangeFailure>,
    /// The upstream that answered.
    pub upstream: Option<SocketAddr>,
    /// How long it took.
    pub took: Duration,
}

/// Why an exchange gave no usable response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeFailure {
    /// The rcode for the client.
    pub rcode: crate::dns::Rcode,
    /// For the `errors` plugin: Go's wording.
    pub text: Box<str>,
}

/// Reads the directive.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let _ = setup;
    todo!()
}
