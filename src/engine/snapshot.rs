//! One loaded Corefile: servers, blocks, chains, services. Never changes once built.

use super::fitted::FittedReplies;
use super::zones::Zones;
use crate::corefile::{CorefileError, KeyTransport, ServerKey};
use crate::dns::{Query, ReplyLimits, Response, Transport, finish_reply};
use crate::metrics::Counter;
use crate::plugin::prometheus::Tally;
use crate::plugin::{Carried, Chain, Level, ServerIdentity, Service, Timeouts};
use std::sync::Arc;

/// One server block, set up.
pub struct Block {
    /// The keys, CIDR keys expanded.
    pub keys: Vec<ServerKey>,
    /// The handlers, outermost first.
    pub chain: Chain,
    /// `metadata` stands in the block.
    pub metadata: bool,
}

/// One listener: the blocks that share a transport, address and port.
pub struct Server {
    /// Label and number.
    pub identity: ServerIdentity,
    /// The scheme.
    pub transport: KeyTransport,
    /// The address after `bind` in its shortest form, with `%zone` where it has one, or `None` for
    /// all addresses.
    pub host: Option<String>,
    /// The port; 0 for one that the system chooses.
    pub port: u16,
    /// Which block serves which zone.
    pub zones: Zones,
    /// TCP timeouts.
    pub timeouts: Timeouts,
    /// How `tls://`, `https://` and `quic://` are encrypted: the last block's `tls`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Classes other than IN reach the chain.
    pub any_class: bool,
    /// `debug` stands in one of the blocks.
    pub debug: bool,
    /// `errors { stacktrace }` in the last block.
    pub stacktrace: bool,
    /// Queries that reach no block's chain.
    pub dropped: Tally,
    /// Panics caught while a query passed.
    pub panics: Counter,
}

/// One loaded Corefile.
pub struct Snapshot {
    /// The blocks in file order.
    pub blocks: Vec<Arc<Block>>,
    /// The listeners.
    pub servers: Vec<Server>,
    /// EDNS options, by their codes, that every reply may carry back to its client, where there are
    /// some.
    pub reflected: Option<Arc<[u16]>>,
    /// Replies as they were cut to a datagram's size.
    pub fitted: FittedReplies,
    /// What the app shall run beside them, in directive order.
    pub services: Vec<Service>,
    /// State that the next snapshot may take over.
    pub carried: Carried,
}

impl Snapshot {
    /// The level of the least lines that are shown while it serves.
    pub fn least_level(&self) -> Level {
        least_level(&self.servers)
    }

    /// Makes the reply for the client out of the response, within what its transport takes.
    pub fn finish(&self, query: &Query<'_>, response: &mut Response, transport: Transport) {
        let limits = ReplyLimits::of(query, transport);
        finish_reply(query, response, limits, |reply, limit| self.fitted.fit(reply, limit));
    }
}

/// `debug` in one block is for the whole process, as in CoreDNS.
pub(super) fn least_level(servers: &[Server]) -> Level {
    match servers.iter().any(|server| server.debug) {
        true => Level::Debug,
        false => Level::Info,
    }
}

/// Why a Corefile gives no snapshot: CoreDNS's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A directive or key is wrong.
    #[error(transparent)]
    Corefile(#[from] CorefileError),
    /// The blocks contradict one another, such as a zone defined twice.
    #[error(transparent)]
    Servers(CorefileError),
}

impl From<BuildError> for CorefileError {
    fn from(error: BuildError) -> CorefileError {
        let (BuildError::Corefile(error) | BuildError::Servers(error)) = error;
        error
    }
}
