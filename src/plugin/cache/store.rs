//! The two stores of one `cache` directive, success and denial, on moka.
//!
//! Owns keys, bounds and eviction. Survives reloads, so it holds nothing of a snapshot: no metric
//! handles, no options. Bounded twice: by entries and, through entries that weigh more than one,
//! by octets ([`OCTETS_PER_ENTRY`]).

use super::entry::{Entry, QueryBits};
use super::front::Front;
use crate::dns::Query;
use arc_swap::Guard;
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bound on octets is the capacity times this: an entry weighs one place for each 4 KiB begun.
/// Hardly any response is larger, so by count alone the capacity is what the Corefile says.
pub(super) const OCTETS_PER_ENTRY: usize = 4096;

/// CoreDNS's shards, whose rounding decides the capacity that a Corefile's number means.
const SHARDS: u64 = 256;
/// The least capacity of a shard.
const LEAST_PER_SHARD: u64 = 4;

/// How many entries a CAPACITY means: rounded down to a multiple of 256, at least 1024.
pub(super) fn effective_capacity(capacity: i64) -> u64 {
    (u64::try_from(capacity).unwrap_or(0) / SHARDS).max(LEAST_PER_SHARD) * SHARDS
}

/// One of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Positive responses and referrals.
    Success,
    /// NXDOMAIN, NODATA, SERVFAIL, NOTIMP.
    Denial,
}

impl Side {
    /// The metrics label.
    pub(super) fn word(self) -> &'static str {
        match self {
            Side::Success => "success",
            Side::Denial => "denial",
        }
    }

    fn other(self) -> Side {
        match self {
            Side::Success => Side::Denial,
            Side::Denial => Side::Success,
        }
    }
}

/// The seeded hash of a question, its class, DO and CD. Entries check the question itself, so a
/// collision is a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(pub(super) u64);

/// The stores of one directive.
pub(super) struct Store {
    seed: SeedableRandomState,
    front: Arc<Front>,
    success: Half,
    denial: Half,
}

impl Store {
    /// Empty stores for this many entries each; `seed` is random, so that no pod can choose names
    /// that collide.
    pub(super) fn new(success: u64, denial: u64, seed: u64) -> Store {
        let front = Arc::new(Front::new(success));
        Store {
            seed: SeedableRandomState::with_seed(seed, SharedSeed::global_random()),
            success: Half::new(success, &front),
            denial: Half::new(denial, &front),
            front,
        }
    }

    /// The key of `query`.
    pub(super) fn key(&self, query: &Query<'_>) -> Key {
        let bits = QueryBits::of(query);
        let mut hasher = self.seed.build_hasher();
        hasher.write(query.name().as_bytes());
        hasher.write_u64(
            u64::from(query.qtype().0) << 32
                | u64::from(query.qclass().0) << 8
                | u64::from(bits.dnssec_ok) << 1
                | u64::from(bits.checking_disabled),
        );
        Key(hasher.finish())
    }

    /// A live entry for `query`, if one is at hand: what [`Store::find`] gives, without its cost.
    pub(super) fn at_hand(
        &self,
        key: Key,
        query: &Query<'_>,
        now: Duration,
    ) -> Option<Guard<Option<Arc<Entry>>>> {
        let held = self.front.look(key)?;
        let entry = held.as_ref()?;
        if entry.remaining(now) <= 0 || !entry.is_for(query) {
            return None;
        }
        entry.touch();
        Some(held)
    }

    /// Keeps an entry that [`Store::find`] gave at hand for the next query.
    pub(super) fn keep_at_hand(&self, entry: &Arc<Entry>) {
        self.front.put(entry);
    }

    /// The entry to serve `query` from, which may be stale when `window` (seconds) allows it.
    /// A live negative entry goes before a positive one, but a failure never before a usable
    /// positive one (spec/coredns.md §8.3 no. 4).
    pub(super) fn find(
        &self,
        key: Key,
        query: &Query<'_>,
        now: Duration,
        window: u32,
    ) -> Option<Arc<Entry>> {
        let usable = |entry: &Arc<Entry>| entry.is_usable(now, window) && entry.is_for(query);
        let positive = self.success.get(key).filter(usable);
        // The common case, a positive hit, costs the second store no more than a look.
        let negative = if self.denial.holds(key) { self.denial.get(key) } else { None };
        match negative.filter(usable) {
            None => positive,
            Some(negative) => match positive {
                Some(positive)
                    if negative.is_failure()
                        || (negative.remaining(now) <= 0 && positive.remaining(now) > 0) =>
                {
                    Some(positive)
                }
                _ => Some(negative),
            },
        }
    }

    /// Whether a SERVFAIL or NOTIMP for `query` is still live: it was asked just now.
    pub(super) fn has_live_failure(&self, key: Key, query: &Query<'_>, now: Duration) -> bool {
        self.denial.holds(key)
            && self.denial.get(key).is_some_and(|entry| {
                entry.is_failure() && entry.remaining(now) > 0 && entry.is_for(query)
            })
    }

    /// Puts an entry in. One that is no failure makes a usable entry of the other store go: it is
    /// what upstream says now.
    pub(super) fn put(&self, entry: &Arc<Entry>, now: Duration, window: u32) {
        let (key, side, is_failure) = (entry.key(), entry.side(), entry.is_failure());
        self.half(side).put(entry);
        let other = self.half(side.other());
        if !is_failure
            && other.holds(key)
            && other.get(key).is_some_and(|old| old.is_usable(now, window))
        {
            other.remove(key);
        }
        // A failure waits until a lookup has found nothing better; what the store did not admit
        // stays out of here too.
        if !is_failure && self.half(side).holds(key) {
            self.front.put(entry);
        }
    }

    /// The entries for `query` in either store, whatever their age.
    pub(super) fn all(&self, key: Key, query: &Query<'_>) -> [Option<Arc<Entry>>; 2] {
        [&self.denial, &self.success].map(|half| half.get(key).filter(|entry| entry.is_for(query)))
    }

    /// How many entries a store holds.
    pub(super) fn count(&self, side: Side) -> u64 {
        self.half(side).entries.entry_count()
    }

    /// How many entries of a store had to make room since the last call.
    pub(super) fn take_evicted(&self, side: Side) -> u64 {
        self.half(side).evicted.swap(0, Ordering::Relaxed)
    }

    /// Removes what can never be served again, and tells the stores what was asked for.
    pub(super) fn sweep(&self, now: Duration, window: u32) {
        for half in [&self.success, &self.denial] {
            half.entries.run_pending_tasks();
            for (_, entry) in &half.entries {
                if !entry.is_usable(now, window) {
                    half.entries.invalidate(&entry.key().0);
                } else if entry.take_touch() {
                    half.get(entry.key());
                }
            }
            half.entries.run_pending_tasks();
        }
        self.front
            .sweep(|entry| entry.remaining(now) > 0 && self.half(entry.side()).holds(entry.key()));
    }

    fn half(&self, side: Side) -> &Half {
        match side {
            Side::Success => &self.success,
            Side::Denial => &self.denial,
        }
    }
}

struct Half {
    entries: Cache<u64, Arc<Entry>, BuildHasherDefault<AlreadyHashed>>,
    evicted: Arc<AtomicU64>,
}

impl Half {
    fn new(capacity: u64, front: &Arc<Front>) -> Half {
        let evicted = Arc::new(AtomicU64::new(0));
        let (count, front) = (Arc::clone(&evicted), Arc::clone(front));
        let entries = Cache::builder()
            .max_capacity(capacity)
            // A frequency policy keeps newcomers out of a full store: a name asked for twice in a
            // row would go upstream twice.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, entry: &Arc<Entry>| {
                u32::try_from(entry.octets().div_ceil(OCTETS_PER_ENTRY)).unwrap_or(u32::MAX)
            })
            .eviction_listener(move |_, entry, cause| {
                front.remove(&entry);
                if cause == RemovalCause::Size {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(BuildHasherDefault::default());
        Half { entries, evicted }
    }

    fn get(&self, key: Key) -> Option<Arc<Entry>> {
        self.entries.get(&key.0)
    }

    fn holds(&self, key: Key) -> bool {
        self.entries.contains_key(&key.0)
    }

    /// Bookkeeping is done here, by the query that waited for upstream anyway, and so hardly ever
    /// by a hit.
    fn put(&self, entry: &Arc<Entry>) {
        self.entries.insert(entry.key().0, Arc::clone(entry));
        self.entries.run_pending_tasks();
    }

    fn remove(&self, key: Key) {
        self.entries.invalidate(&key.0);
        self.entries.run_pending_tasks();
    }
}

/// Passes on keys that are hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys are u64 alone; anything else is still hashed, if badly.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
