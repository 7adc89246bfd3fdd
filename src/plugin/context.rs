//! All that a handler may touch while a query passes.

use super::forward::Exchanged;
use super::journal::Journal;
use crate::dns::Transport;
use rand::rngs::StdRng;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One clock reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Since some fixed moment of this process; never goes back. TTLs count in it.
    pub monotonic: Duration,
    /// Since the Unix epoch; for signature validity and time stamps alone.
    pub unix: Duration,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The client's address and port.
    pub address: SocketAddr,
    /// The address and port the query was sent to.
    pub local: SocketAddr,
    /// How it came.
    pub transport: Transport,
}

/// The listener that a query came in on, within the block that serves it.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The metrics label: `dns://169.254.20.10:53`.
    pub label: Arc<str>,
    /// A small number, unique among the snapshot's servers, from 0.
    pub index: usize,
}

/// What one handler remembers of one query between its passes. Empty on the hit path.
pub type Note = Option<Box<dyn Any + Send>>;

/// The metadata labels of a query (`{/forward/upstream}` in `log`); collected only when the block
/// has `metadata`.
#[derive(Debug, Default)]
pub struct Labels {
    /// Whether anyone will read them.
    pub wanted: bool,
    /// Label and value.
    pub pairs: Vec<(&'static str, String)>,
}

impl Labels {
    /// Sets a label if labels are wanted.
    pub fn set(&mut self, label: &'static str, value: impl FnOnce() -> String) {
        if self.wanted {
            self.pairs.retain(|(known, _)| *known != label);
            self.pairs.push((label, value()));
        }
    }

    /// A label's value.
    pub fn get(&self, label: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| *known == label).map(|(_, value)| value.as_str())
    }
}

/// All that a handler may touch while a query passes.
pub struct Context<'a> {
    /// The time of this pass.
    pub now: Now,
    /// When the query was received.
    pub received: Now,
    /// Who asks.
    pub client: &'a Client,
    /// The listener.
    pub server: &'a ServerIdentity,
    /// Chance.
    pub random: &'a mut StdRng,
    /// What this handler keeps until its next pass of the same query.
    pub note: Note,
    /// Metadata labels.
    pub labels: &'a mut Labels,
    /// True for a query without a client: a prefetch or a refresh of a stale entry. Only the
    /// handler that wished for it, and those below, see it.
    pub clientless: bool,
    /// Set it to have this question asked again, without a client, through the handlers below
    /// this one; the response comes to this handler alone.
    pub refresh: bool,
    /// Set it before [`super::Flow::Next`]: when no response has come after this long, this
    /// handler's `response` is called with nothing written and [`Context::late`] set, and the
    /// exchange goes on without the client.
    pub patience: Option<Duration>,
    /// Set it before [`super::Flow::Next`] when there is an answer to fall back on: then no upstream that is
    /// away is waited for to come back.
    pub falls_back: bool,
    /// The monotonic moment from which on this query waits for no upstream any more; what it waits
    /// for then has failed. Further questions inherit it. A handler may bring it nearer.
    pub deadline: &'a mut Option<Duration>,
    /// True in a `response` that is called because patience ended.
    pub late: bool,
    /// In the pass after an exchange: how it ended.
    pub exchanged: Option<&'a Exchanged>,
    /// Lines for the operator.
    pub journal: &'a dyn Journal,
}
