//! A question for upstreams, and how it ended: what `forward` and `net::upstream` hand each other.
//!
//! Owns the form of both. Decides nothing.

use super::options::{Options, Upstream};
use super::policy::Order;
use crate::dns::{Rcode, Transport};
use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The upstreams and options of one `forward` directive. `net::upstream` runs it.
#[derive(Debug)]
pub struct Upstreams {
    /// The upstreams in Corefile order, [`super::MOST_UPSTREAMS`] at most. There are none while files
    /// name all of them and none by its address; nobody is asked then.
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
    /// The greatest response in octets that a client over UDP takes, and that is passed on whole; `None` for
    /// one that asks otherwise.
    pub udp_limit: Option<u16>,
    /// When all tries end: what is left of the query's [`super::BUDGET`].
    pub budget: Duration,
    /// [`Exchanged::tried`] is wanted: `dnstap` stands above.
    pub keeps_tries: bool,
    /// There is an answer to fall back on: an upstream that is away is not waited for to come back.
    pub is_hasty: bool,
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
    /// Each try in the order of their beginnings, when [`Exchange::keeps_tries`]; empty for those
    /// that joined another's exchange.
    pub tried: Vec<Tried>,
}

/// One try of one upstream. Times count from the exchange's beginning.
#[derive(Debug, Clone)]
pub struct Tried {
    /// Who was asked.
    pub upstream: SocketAddr,
    /// How.
    pub transport: Transport,
    /// When.
    pub began: Duration,
    /// The usable response, and when it came.
    pub response: Option<(Duration, Arc<[u8]>)>,
}

/// Why an exchange gave no usable response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeFailure {
    /// The rcode for the client.
    pub rcode: Rcode,
    /// For the `errors` plugin: Go's wording.
    pub text: Box<str>,
}
