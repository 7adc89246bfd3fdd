//! How much memory the process may use, and which part of it each user has.
//!
//! Owns the shares and what is taken of them, in octets as their users count them. Never frees
//! anything: who is over its share makes room, or refuses.

use super::cache::Store;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// What the program itself takes, its threads, buffers and metrics: at most this, at most a quarter.
const OWN_MOST: u64 = 16 << 20;

/// The part of that for records that wait for dnstap's collectors: one of so many.
const RECORDS: u64 = 4;

/// Hundredths of the rest. What is missing to 100 is the allocator's: free room between what is in
/// use.
const CACHE: u64 = 50;
const WAITING: u64 = 15;
const BUFFERS: u64 = 10;
const CONNECTIONS: u64 = 10;

/// A part of the memory.
#[derive(Debug)]
pub struct Share {
    most: u64,
    used: AtomicU64,
}

impl Share {
    fn new(most: u64) -> Share {
        Share { most, used: AtomicU64::new(0) }
    }

    /// The most octets; `u64::MAX` without a limit.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Octets in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Octets that are not in use.
    pub fn free(&self) -> u64 {
        self.most.saturating_sub(self.used())
    }

    /// Takes so many octets if they are there.
    pub fn take(&self, octets: u64) -> bool {
        let before = self.used.fetch_add(octets, Ordering::Relaxed);
        let fits = before.saturating_add(octets) <= self.most;
        if !fits {
            self.give(octets);
        }
        fits
    }

    /// Takes so many octets in any case: who adds looks at [`Share::is_over`].
    pub fn add(&self, octets: u64) {
        self.used.fetch_add(octets, Ordering::Relaxed);
    }

    /// Gives octets back.
    pub fn give(&self, octets: u64) {
        self.used.fetch_sub(octets, Ordering::Relaxed);
    }

    /// Whether more is in use than there is.
    pub fn is_over(&self) -> bool {
        self.used() > self.most
    }
}

/// The memory of the process in shares.
#[derive(Debug)]
pub struct Budget {
    limit: Option<u64>,
    /// Entries of all caches.
    pub cache: Share,
    /// Queries that wait.
    pub waiting: Share,
    /// What client connections hold back: replies that are not sent, queries that are not whole.
    pub buffers: Share,
    /// Client connections themselves: their tasks and sessions.
    pub connections: Share,
    /// Records that wait for dnstap's collectors, or are being sent.
    pub records: Share,
    stores: Mutex<Vec<Weak<Store>>>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget::new(None)
    }
}

impl Budget {
    /// Shares of `limit` octets; without a limit none is bounded.
    pub fn new(limit: Option<u64>) -> Budget {
        let own = |limit: u64| OWN_MOST.min(limit / 4);
        let share = |hundredths: u64| {
            Share::new(limit.map_or(u64::MAX, |limit| (limit - own(limit)) / 100 * hundredths))
        };
        Budget {
            limit,
            cache: share(CACHE),
            waiting: share(WAITING),
            buffers: share(BUFFERS),
            connections: share(CONNECTIONS),
            records: Share::new(limit.map_or(u64::MAX, |limit| own(limit) / RECORDS)),
            stores: Mutex::default(),
        }
    }

    /// The limit in octets.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Every share with its name.
    pub fn shares(&self) -> [(&'static str, &Share); 5] {
        [
            ("cache", &self.cache),
            ("waiting", &self.waiting),
            ("buffers", &self.buffers),
            ("connections", &self.connections),
            ("records", &self.records),
        ]
    }

    /// A store whose entries may have to make room for another's.
    pub(super) fn enrol(&self, store: &Arc<Store>) {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&Arc::downgrade(store)));
        stores.push(Arc::downgrade(store));
    }

    /// Has the store with the most octets let entries go while all together are over their share:
    /// whichever grows, none is starved by one that was first. Call it without a lock of a store.
    pub(super) fn make_room(&self, now: Duration) {
        while self.cache.is_over() {
            let stores: Vec<Arc<Store>> = {
                let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
                stores.iter().filter_map(Weak::upgrade).collect()
            };
            let largest = stores.iter().max_by_key(|store| store.octets());
            if !largest.is_some_and(|store| store.give_way(now)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::plugin::testing::Bench;

    #[test]
    fn the_shares_are_less_than_the_limit() {
        for limit in [1 << 20, 64 << 20, 1 << 30] {
            let budget = Budget::new(Some(limit));
            let all: u64 = budget.shares().iter().map(|(_, share)| share.most()).sum();
            assert!(all > limit / 2 && all < limit * 9 / 10, "{limit}: {all}");
        }
    }

    #[test]
    fn the_programs_own_part_is_a_quarter_of_the_limit_or_16_mib() {
        for (limit, own) in [(32 << 20, 8 << 20), (64 << 20, 16 << 20), (1 << 30, 16 << 20)] {
            let budget = Budget::new(Some(limit));
            assert_eq!(budget.cache.most(), (limit - own) / 100 * CACHE, "{limit}");
        }
    }

    #[test]
    fn each_store_is_known_once_and_as_long_as_it_is_there() {
        let mut bench = Bench::new();
        for directive in ["cache 30", "cache 30", "cache 31", "cache 31"] {
            assert!(bench.load(directive, &MemorySurroundings::default()).is_ok());
        }
        assert_eq!(bench.carried.budget().stores.lock().unwrap().len(), 1);
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let budget = Budget::default();
        assert!(budget.waiting.take(1 << 40) && !budget.waiting.is_over());
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let share = Share::new(10);
        assert!(share.take(6));
        assert!(!share.take(5));
        assert_eq!(share.used(), 6);
        share.give(6);
        assert!(share.take(10) && !share.is_over());
    }
}
