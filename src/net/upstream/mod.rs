//! Upstream connections, health, retries: runs the exchanges that `forward` asks for.

use crate::dns::Query;
use crate::plugin::Client;
use crate::plugin::forward::{Exchange, Exchanged};

/// One worker's way to the upstreams: its connections, over health state that all workers share.
/// Lives on the worker's runtime and spawns its connection tasks there.
#[derive(Debug)]
pub struct Dispatcher {}

impl Dispatcher {
    /// Asks the upstreams of `exchange` in policy order until one gives a usable response or the
    /// budget ends (at most 4 s in all).
    pub async fn exchange(
        &self,
        query: &Query<'_>,
        client: &Client,
        exchange: &Exchange,
    ) -> Exchanged {
        let _ = (query, client, exchange);
        todo!()
    }
}
