//! The worker threads: started once, given each new snapshot, drained at the end.

use super::Clock;
use crate::engine::Snapshot;
use crate::metrics::Registry;
use crate::plugin::Journal;
use std::sync::Arc;
use std::time::Duration;

/// What the workers use for their whole life.
#[derive(Clone)]
pub struct Equipment {
    /// How many threads, from 1: [`default_workers`], and the number that the registry was made
    /// for.
    pub workers: usize,
    /// The clock; upkeep must use the same one.
    pub clock: Clock,
    /// The registry.
    pub metrics: Registry,
    /// Lines for the operator.
    pub journal: Arc<dyn Journal>,
}

/// Why an address cannot be listened on, in Go's words: `Listen: listen tcp 127.0.0.1:53: bind:
/// address already in use`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ListenError(pub String);

/// The threads that serve queries.
pub struct Workers {}

/// The number of workers when nobody says another: the cores this process may use, with a bound.
pub fn default_workers() -> usize {
    todo!()
}

/// Whether `host` (`None`: all addresses) and `port` can be listened on by UDP and TCP now.
pub fn can_listen(host: Option<&str>, port: &str) -> Result<(), ListenError> {
    let _ = (host, port);
    todo!()
}

impl Workers {
    /// Binds every address of `snapshot`, then starts the threads and serves.
    pub fn start(equipment: Equipment, snapshot: Arc<Snapshot>) -> Result<Workers, ListenError> {
        let _ = (equipment, snapshot);
        todo!()
    }

    /// Binds the addresses that `snapshot` adds, then serves by it. Returns when every worker
    /// does; addresses that are gone are closed after what they had received is answered. After an
    /// error nothing has changed. Blocks: not for an async context's own thread of a worker.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Result<(), ListenError> {
        let _ = snapshot;
        todo!()
    }

    /// Answers or parks what has been received and closes the listening sockets.
    pub fn stop_reading(&self) {
        todo!()
    }

    /// Waits until no query is parked and no reply unsent, `longest` at most; true when all are
    /// gone. Blocks.
    pub fn drain(&self, longest: Duration) -> bool {
        let _ = longest;
        todo!()
    }

    /// Ends the threads.
    pub fn join(self) {
        todo!()
    }
}
