//! Octets that are kept for a connection outside its own buffers, counted against the process's memory until
//! they are gone.
//!
//! Owns the counts of such octets. What becomes of a connection for which there is no memory is `open`'s to say.

use crate::plugin::Budget;
use std::sync::Arc;

/// Octets up to which nothing is counted: they are a part of their connection.
const SMALL: usize = 1024;

/// How many octets are kept; given back when dropped.
pub(in crate::net) struct Kept {
    counted: u64,
    budget: Arc<Budget>,
}

impl Kept {
    /// None yet.
    pub(super) fn new(budget: Arc<Budget>) -> Kept {
        Kept { counted: 0, budget }
    }

    /// Counts what is kept by now; whether that is more than before.
    pub(super) fn grows_to(&mut self, octets: usize) -> bool {
        let more = match octets <= SMALL {
            true => 0,
            false => (octets as u64).saturating_sub(self.counted),
        };
        self.budget.buffers.add(more);
        self.counted += more;
        more > 0
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.buffers.give(self.counted);
    }
}

/// A query that may not be whole yet, or a reply that its client may not have taken yet.
pub(in crate::net) struct HeldBack {
    pub(super) octets: Vec<u8>,
    pub(super) kept: Kept,
}

impl AsRef<[u8]> for HeldBack {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}
