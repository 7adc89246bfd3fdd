//! Octets that are kept for a connection outside its own buffers, counted against the process's memory until
//! they are gone.
//!
//! Owns the count of such octets. What becomes of a connection for which there is no memory is `open`'s to say.

use crate::plugin::Budget;
use std::sync::Arc;

/// Queries and replies of HTTPS and QUIC up to this size are counted as a part of their connection.
const SMALL: usize = 1024;

/// A query that may not be whole yet, or a reply that its client may not have taken yet.
pub(in crate::net) struct HeldBack {
    pub(super) octets: Vec<u8>,
    counted: u64,
    budget: Arc<Budget>,
}

impl HeldBack {
    /// Of which nothing is counted yet.
    pub(super) fn new(octets: Vec<u8>, budget: Arc<Budget>) -> HeldBack {
        HeldBack { octets, counted: 0, budget }
    }

    /// Counts what is kept by now; whether that is more than before.
    pub(super) fn count(&mut self) -> bool {
        let kept = self.octets.capacity();
        let more = match kept <= SMALL {
            true => 0,
            false => (kept as u64).saturating_sub(self.counted),
        };
        self.budget.buffers.add(more);
        self.counted += more;
        more > 0
    }
}

impl AsRef<[u8]> for HeldBack {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        self.budget.buffers.give(self.counted);
    }
}
