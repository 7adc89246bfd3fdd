//! What is heard over a connection, and since when nothing is.
//!
//! Owns the moments. What silence means for the connection, and for others, is decided elsewhere.

use std::time::Instant;

/// What is heard over one connection.
#[derive(Debug)]
pub(super) struct Hearing {
    /// When it was opened, or something last came.
    last_heard: Instant,
    /// Something came.
    has_spoken: bool,
    /// When queries were first in flight again after there were none.
    busy_since: Instant,
    /// It died in silence: since when a query had waited.
    silent_since: Option<Instant>,
}

impl Hearing {
    /// Of a connection that is opened at `now`.
    pub(super) fn new(now: Instant) -> Hearing {
        Hearing { last_heard: now, has_spoken: false, busy_since: now, silent_since: None }
    }

    /// A query is in flight from `now` on, after there was none.
    pub(super) fn is_busy_from(&mut self, now: Instant) {
        self.busy_since = now;
    }

    /// Something came at `now`.
    pub(super) fn hear(&mut self, now: Instant) {
        self.last_heard = now;
        self.has_spoken = true;
    }

    /// Whether anything ever came.
    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// Whether anything came after `moment`, or it was opened after it.
    pub(super) fn is_heard_since(&self, moment: Instant) -> bool {
        self.last_heard > moment
    }

    /// Since when nothing came although queries were in flight, while there are any.
    pub(super) fn waits_since(&self) -> Instant {
        self.last_heard.max(self.busy_since)
    }

    /// It died in silence, with queries in flight.
    pub(super) fn died(&mut self) {
        self.silent_since = Some(self.waits_since());
    }

    /// The time of a query asked at `asked` is over. When nothing came since, it died in silence: true.
    pub(super) fn has_died_since(&mut self, asked: Instant) -> bool {
        let has_died = !self.is_heard_since(asked);
        if has_died {
            self.silent_since = Some(self.silent_since.map_or(asked, |at| at.min(asked)));
        }
        has_died
    }

    /// When it died in silence: since when a query had waited.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }
}
