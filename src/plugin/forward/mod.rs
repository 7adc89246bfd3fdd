//! `forward`: which upstreams a query goes to, and what their responses mean (spec/coredns.md §3).
//!
//! Owns the directive's options and decisions: matching, policy, verdict on a response, what is
//! tried next. The connections, timers and health state are `net::upstream`'s.

mod options;
mod policy;
mod tls;

pub use options::{Keeping, LONGEST_TRY, Options, Probe, Upstream};
pub use policy::{MOST_UPSTREAMS, Order, Policy};
pub use tls::{TlsFiles, TlsSettings};

use super::Setup;
use crate::corefile::CorefileError;
use crate::dns::Transport;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The upstreams and options of one `forward` directive. `net::upstream` runs it.
#[derive(Debug)]
pub struct Upstreams {
    /// The upstreams in Corefile order, 1 to [`MOST_UPSTREAMS`].
    pub all: Vec<Upstream>,
    /// The options.
    pub options: Options,
    /// What `net::upstream` found or made for these upstreams: their health and connections.
    pub attached: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// A question for upstreams: what the engine waits for.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Whom to ask, and how.
    pub upstreams: Arc<Upstreams>,
    /// In which order.
    pub order: Order,
    /// UDP or TCP for upstreams that are not `tls://`.
    pub transport: Transport,
    /// The greatest UDP response in octets that is passed on whole.
    pub udp_limit: u16,
}

/// How an exchange ended.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// The response's bytes as received and checked, or the error in CoreDNS's words.
    pub outcome: Result<Arc<[u8]>, ExchangeFailure>,
    /// The upstream that answered, or was asked last.
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
