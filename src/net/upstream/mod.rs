//! Upstream connections, health, retries: runs the exchanges that `forward` asks for.

use crate::dns::Query;
use crate::metrics::Registry;
use crate::plugin::Client;
use crate::plugin::forward::{Exchange, Exchanged};
use std::sync::Arc;

/// What all workers share: upstream health, stream connections, node-wide bounds. Made once, kept
/// over reloads.
#[derive(Debug)]
pub struct Shared {}

impl Shared {
    /// Nothing known yet. `workers` is how many [`Dispatcher`]s there will be.
    pub fn new(metrics: &Registry, workers: usize) -> Arc<Shared> {
        let _ = (metrics, workers);
        Arc::new(Shared {})
    }
}

/// One worker's way to the upstreams: its connections, over health state that all workers share.
/// Lives on the worker's runtime and spawns its connection tasks there.
#[derive(Debug)]
pub struct Dispatcher {
    #[allow(dead_code)]
    shared: Arc<Shared>,
}

impl Dispatcher {
    /// For the worker with this number, from 0 and below the `workers` of [`Shared::new`].
    pub fn new(shared: Arc<Shared>, worker: usize) -> Dispatcher {
        let _ = worker;
        Dispatcher { shared }
    }

    /// Asks the upstreams of `exchange` in policy order until one gives a usable response or the
    /// budget ends (at most 4 s in all). Call it inside the worker's runtime; dropping the future gives up
    /// the question.
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
