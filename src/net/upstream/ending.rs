//! What the task of a connection holds: the connection and its place in its pool.
//!
//! Owns the end: however the task ends, be it with its runtime, the connection is closed and its place
//! is free. Reads nothing.

use super::connection::Connection;
use super::pool::Pool;
use std::sync::Arc;
use std::time::Instant;

/// Ends the connection when its task ends, be it with the runtime.
pub(super) struct Ending {
    /// The connection.
    pub(super) connection: Arc<Connection>,
    /// The pool that it is one of.
    pub(super) pool: Arc<Pool>,
}

impl Ending {
    /// Hands a message, read at `now`, to whoever asked for it; one that nobody did is counted.
    pub(super) fn deliver(&self, message: &[u8], now: Instant) {
        if !self.connection.deliver(message, now) {
            self.pool.ignored.increment();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.connection.close(&self.connection.words("use of closed network connection"));
        self.pool.remove(&self.connection);
    }
}
