//! One loaded Corefile: servers, blocks, chains, services. Never changes once built.

use super::zones::Zones;
use crate::corefile::{CorefileError, KeyTransport, ServerKey, Surroundings, Tree};
use crate::metrics::Registry;
use crate::plugin::{Carried, Chain, Journal, ServerIdentity, Service, Timeouts};
use rand::rngs::StdRng;
use std::sync::Arc;

/// One server block, set up.
pub struct Block {
    /// The keys, CIDR keys expanded.
    pub keys: Vec<ServerKey>,
    /// The addresses after `bind`; empty when the block listens on all.
    pub hosts: Vec<String>,
    /// The handlers, outermost first.
    pub chain: Chain,
    /// `metadata` stands in the block.
    pub metadata: bool,
}

/// One listener: the blocks that share a transport, address and port (spec/coredns.md §1.7).
pub struct Server {
    /// Label and number.
    pub identity: ServerIdentity,
    /// The scheme.
    pub transport: KeyTransport,
    /// The address as written after `bind`, or `None` for all addresses.
    pub host: Option<String>,
    /// The port as written.
    pub port: String,
    /// Which block serves which zone.
    pub zones: Zones,
    /// TCP timeouts.
    pub timeouts: Timeouts,
    /// Classes other than IN reach the chain.
    pub any_class: bool,
    /// `debug` stands in one of the blocks.
    pub debug: bool,
    /// `errors { stacktrace }` in the last block.
    pub stacktrace: bool,
}

/// One loaded Corefile.
pub struct Snapshot {
    /// The blocks in file order.
    pub blocks: Vec<Arc<Block>>,
    /// The listeners.
    pub servers: Vec<Server>,
    /// What the app shall run beside them, in directive order.
    pub services: Vec<Service>,
    /// State that the next snapshot may take over.
    pub carried: Carried,
}

/// Why a Corefile gives no snapshot: CoreDNS's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A directive or key is wrong.
    #[error(transparent)]
    Corefile(#[from] CorefileError),
    /// The blocks contradict one another, such as a zone defined twice.
    #[error("{0}")]
    Servers(String),
}

/// What a build uses.
pub struct World<'w> {
    /// Files, environment, interfaces.
    pub surroundings: &'w dyn Surroundings,
    /// The registry.
    pub metrics: &'w Registry,
    /// Lines for the operator.
    pub journal: &'w dyn Journal,
    /// Chance.
    pub random: &'w mut StdRng,
    /// `-dns.port`.
    pub default_port: u16,
    /// What the snapshot before left.
    pub carried: Carried,
}

/// Tree to snapshot: all setups in directive order, then the listeners (spec/coredns.md §0.3, §1.7).
pub fn build(tree: &Tree, world: World<'_>) -> Result<Snapshot, BuildError> {
    let _ = (tree, world.surroundings, world.default_port);
    todo!()
}
