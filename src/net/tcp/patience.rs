//! How long a client may take.

use super::open::Connection;
use crate::net::stream::Stream;
use crate::plugin::Timeouts;
use std::time::Duration;
use tokio::time::Instant;

/// How often a connection that waits for upstreams alone looks at itself.
const LOOK: Duration = Duration::from_secs(30);

/// When a connection has lasted too long.
pub(super) struct Patience {
    timeouts: Timeouts,
    /// Whether a whole message has come, a query or not.
    pub(super) spoken: bool,
}

impl Patience {
    pub(super) fn new(timeouts: Timeouts) -> Patience {
        Patience { timeouts, spoken: false }
    }

    /// While replies are unsent, by the connection or by its stream, the time that the client has to
    /// take some; while queries wait, none; else until the next query must be complete.
    pub(super) fn deadline(&self, connection: &Connection, stream: &Stream) -> Instant {
        let lasts = if stream.has_unsent() || !connection.unsent.borrow().is_empty() {
            self.timeouts.write
        } else if connection.waiting.get() > 0 {
            return Instant::now() + LOOK;
        } else if self.spoken {
            self.timeouts.idle
        } else {
            self.timeouts.read
        };
        connection.active.get() + lasts
    }
}
