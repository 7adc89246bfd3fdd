//! The two stores of one `cache` directive, success and denial, in shards behind short locks.
//!
//! Owns keys, bounds and the choice between the two. Survives reloads that leave its directive alone,
//! so it holds nothing of a snapshot: no metric handles. Bounded twice: by entries and by octets
//! ([`OCTETS_PER_ENTRY`]). A lookup takes one lock, that of its shard, for as long as a reply is
//! copied; no work on a whole store is done under one.

use super::entry::{Entry, QueryBits};
use super::shard::{Pair, Shard};
use crate::dns::{Class, Query, RecordType};
use crate::plugin::Budget;
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The bound on octets is the capacity times this. Hardly any response is so large, so the capacity
/// is what the Corefile says.
pub(super) const OCTETS_PER_ENTRY: u64 = 4096;

/// CoreDNS's shards, whose rounding decides the capacity that a Corefile's number means.
const SHARDS: u64 = 256;
/// The least capacity of a shard of CoreDNS's.
const LEAST_PER_SHARD: u64 = 4;

/// Entries of a side that one of our shards is made for, and the least and most shards.
const ENTRIES_PER_SHARD: u64 = 1024;
const SHARDS_LEAST: u64 = 16;
const SHARDS_MOST: u64 = 256;

/// Slots that a sweep or an export looks at under one lock.
pub(super) const SLICE: usize = 128;

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

/// Whose wish brought a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client's.
    Client,
    /// A refresh: the new entry takes over what the previous one counted.
    Refresh,
}

/// What [`Store::find`] found.
pub(super) struct Found<'e> {
    /// The entry to serve from.
    pub(super) entry: &'e mut Entry,
    /// A SERVFAIL or NOTIMP for the same question is still live: it was asked just now.
    pub(super) is_failing: bool,
}

/// The bounds of one side, and how far they are used.
struct Total {
    entries_most: u64,
    octets_most: u64,
    entries: AtomicU64,
    octets: AtomicU64,
    evicted: AtomicU64,
    budget: Arc<Budget>,
}

impl Total {
    fn new(capacity: u64, budget: Arc<Budget>) -> Total {
        Total {
            entries_most: capacity,
            octets_most: capacity.saturating_mul(OCTETS_PER_ENTRY),
            entries: AtomicU64::new(0),
            octets: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            budget,
        }
    }

    fn add(&self, entry: &Entry) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.octets.fetch_add(entry.octets() as u64, Ordering::Relaxed);
        self.budget.cache.add(entry.octets() as u64);
    }

    fn subtract(&self, entry: &Entry) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.octets.fetch_sub(entry.octets() as u64, Ordering::Relaxed);
        self.budget.cache.give(entry.octets() as u64);
    }

    fn is_over(&self) -> bool {
        self.entries.load(Ordering::Relaxed) > self.entries_most
            || self.octets.load(Ordering::Relaxed) > self.octets_most
    }
}

/// The stores of one directive.
pub struct Store {
    seed: SeedableRandomState,
    /// How long after its TTL an entry may be served, in seconds.
    window: u32,
    /// A power of two.
    shards: Box<[Mutex<Shard>]>,
    /// Success, denial.
    totals: [Total; 2],
    /// Where [`Store::give_way`] goes on.
    gives_way: AtomicUsize,
    budget: Arc<Budget>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = [Side::Success, Side::Denial].map(|side| self.count(side));
        f.debug_struct("Store").field("entries", &entries).finish_non_exhaustive()
    }
}

impl Store {
    /// Empty stores for this many entries each, which may be served `window` seconds after their
    /// TTL; `seed` is random, so that no pod can choose names that collide. All stores together stay
    /// within the `budget`'s share.
    pub(super) fn new(
        success: u64,
        denial: u64,
        window: u32,
        seed: u64,
        budget: Arc<Budget>,
    ) -> Store {
        let count = (success.max(denial) / ENTRIES_PER_SHARD).clamp(SHARDS_LEAST, SHARDS_MOST);
        let count = count.next_power_of_two();
        let [of_success, of_denial] = [success, denial].map(|most| (most / count) as usize);
        let shards = (0..count).map(|_| Mutex::new(Shard::new(of_success, of_denial))).collect();
        Store {
            seed: SeedableRandomState::with_seed(seed, SharedSeed::global_random()),
            window,
            shards,
            totals: [success, denial].map(|most| Total::new(most, budget.clone())),
            gives_way: AtomicUsize::new(0),
            budget,
        }
    }

    /// The key of `query`.
    pub(super) fn key(&self, query: &Query<'_>) -> Key {
        let bits = QueryBits::of(query);
        self.key_of(query.name().as_bytes(), query.qtype(), query.qclass(), bits)
    }

    /// The key of a name in lower case, a type, a class and the bits of the header.
    pub(super) fn key_of(
        &self,
        name: &[u8],
        qtype: RecordType,
        qclass: Class,
        bits: QueryBits,
    ) -> Key {
        let mut hasher = self.seed.build_hasher();
        hasher.write(name);
        hasher.write_u64(
            u64::from(qtype.0) << 32
                | u64::from(qclass.0) << 8
                | u64::from(bits.dnssec_ok) << 1
                | u64::from(bits.checking_disabled),
        );
        Key(hasher.finish())
    }

    /// Gives `use_it` the entry to serve `query` from, which may be stale when `serve_stale` allows
    /// it. The entry's shard is locked meanwhile. A usable negative entry goes before a positive one,
    /// which [`Store::put`] leaves beside it when it is a failure alone: that never goes before a
    /// usable positive one (docs/differences.md).
    pub(super) fn find<T>(
        &self,
        key: Key,
        query: &Query<'_>,
        now: Duration,
        use_it: impl FnOnce(Found<'_>) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(key);
        let pair = shard.find(key, query);
        let slot = self.choose(&shard, pair, now)?;
        let denial = pair.side(Side::Denial).and_then(|slot| shard.entry(slot));
        let is_failing = denial.is_some_and(|entry| entry.is_failure() && entry.remaining(now) > 0);
        let entry = shard.entry_mut(slot)?;
        entry.touch();
        Some(use_it(Found { entry, is_failing }))
    }

    fn choose(&self, shard: &Shard, pair: Pair, now: Duration) -> Option<u32> {
        let usable = |side| {
            let slot = pair.side(side)?;
            let entry = shard.entry(slot).filter(|entry| entry.is_usable(now, self.window))?;
            Some((slot, entry))
        };
        let positive = usable(Side::Success);
        match (usable(Side::Denial), positive) {
            (None, positive) => Some(positive?.0),
            (Some((_, negative)), Some((slot, _))) if negative.is_failure() => Some(slot),
            (Some((slot, _)), _) => Some(slot),
        }
    }

    /// Gives `use_it` every entry for `query`, whatever its age.
    pub(super) fn each(&self, key: Key, query: &Query<'_>, mut use_it: impl FnMut(&mut Entry)) {
        let mut shard = self.shard(key);
        let pair = shard.find(key, query);
        for side in [Side::Denial, Side::Success] {
            if let Some(entry) = pair.side(side).and_then(|slot| shard.entry_mut(slot)) {
                use_it(entry);
            }
        }
    }

    /// Gives `use_it` what now stands in the place of `entry`, a copy.
    pub(super) fn of<T>(&self, entry: &Entry, use_it: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut shard = self.shard(entry.key());
        let slot = shard.holder(entry.key(), entry.side())?;
        shard.entry_mut(slot).map(use_it)
    }

    /// Puts an entry in. One that is no failure makes a usable entry of the other store go: it is
    /// what upstream says now.
    pub(super) fn put(&self, mut entry: Entry, now: Duration, origin: Origin) {
        let (key, side, is_failure) = (entry.key(), entry.side(), entry.is_failure());
        let total = &self.totals[side as usize];
        let mut shard = self.shard(key);
        let others = shard.holder(key, side.other());
        let own = shard.holder(key, side);
        if origin == Origin::Refresh {
            let previous = if side == Side::Denial { own.or(others) } else { others.or(own) };
            if let Some(previous) = previous.and_then(|slot| shard.entry(slot)) {
                entry.inherit(previous, now);
            }
        }
        if let Some(other) = others
            && !is_failure
            && shard.entry(other).is_some_and(|old| old.is_usable(now, self.window))
            && let Some(gone) = shard.remove(other)
        {
            self.totals[side.other() as usize].subtract(&gone);
        }
        total.add(&entry);
        match own {
            Some(slot) => {
                if let Some(gone) = shard.replace(slot, entry) {
                    total.subtract(&gone);
                }
            }
            None => {
                self.make_room(&mut shard, side, now);
                shard.insert(entry);
            }
        }
        drop(shard);
        if total.is_over() {
            self.make_room_elsewhere(key, side, now);
        }
        self.budget.make_room(now);
    }

    /// Evicts an entry of each shard in turn until all caches are within their share of the memory.
    /// False when it has none.
    pub(in super::super) fn give_way(&self, now: Duration) -> bool {
        let mut gone = 0;
        for _ in 0..self.shards.len() {
            let place = self.gives_way.fetch_add(1, Ordering::Relaxed);
            let octets = |side: Side| self.totals[side as usize].octets.load(Ordering::Relaxed);
            let larger = match octets(Side::Success) >= octets(Side::Denial) {
                true => Side::Success,
                false => Side::Denial,
            };
            let mut shard = lock(&self.shards[place % self.shards.len()]);
            let evicted = shard
                .evict(larger, now, self.window)
                .or_else(|| shard.evict(larger.other(), now, self.window));
            drop(shard);
            if let Some(entry) = evicted {
                let total = &self.totals[entry.side() as usize];
                total.subtract(&entry);
                total.evicted.fetch_add(1, Ordering::Relaxed);
                gone += 1;
            }
            if !self.budget.cache.is_over() {
                return true;
            }
        }
        gone > 0
    }

    /// Evicts from this shard until the side is within its bounds, or the shard has none of it.
    fn make_room(&self, shard: &mut Shard, side: Side, now: Duration) {
        let total = &self.totals[side as usize];
        while total.is_over() {
            let Some(gone) = shard.evict(side, now, self.window) else { return };
            total.subtract(&gone);
            total.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The shard of `key` had nothing to give: the others, one after the other.
    fn make_room_elsewhere(&self, key: Key, side: Side, now: Duration) {
        let first = self.place(key) + 1;
        for offset in 0..self.shards.len() {
            let shard = &self.shards[(first + offset) % self.shards.len()];
            self.make_room(&mut lock(shard), side, now);
            if !self.totals[side as usize].is_over() {
                return;
            }
        }
    }

    /// How many entries a store holds.
    pub(super) fn count(&self, side: Side) -> u64 {
        self.totals[side as usize].entries.load(Ordering::Relaxed)
    }

    /// How many octets both stores hold, their tables included.
    pub fn octets(&self) -> u64 {
        self.totals.iter().map(|total| total.octets.load(Ordering::Relaxed)).sum()
    }

    /// How many entries of a store had to make room since the last call.
    pub(super) fn take_evicted(&self, side: Side) -> u64 {
        let evicted = &self.totals[side as usize].evicted;
        // Most calls find none: the cache line stays shared.
        if evicted.load(Ordering::Relaxed) == 0 { 0 } else { evicted.swap(0, Ordering::Relaxed) }
    }

    /// Removes what can never be served again, a slice under each lock.
    pub(super) fn sweep(&self, now: Duration) {
        for shard in &self.shards {
            let mut next = Some(0);
            while let Some(start) = next {
                let mut gone = Vec::new();
                let times = (now, self.window);
                next = lock(shard).sweep(start, SLICE, times, |entry| gone.push(entry));
                // Freed without the lock.
                for entry in gone {
                    self.totals[entry.side() as usize].subtract(&entry);
                }
            }
        }
    }

    /// How long after its TTL an entry may be served, in seconds.
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// The shards, for those who walk over all entries.
    pub(super) fn locked(&self, shard: usize) -> Option<MutexGuard<'_, Shard>> {
        self.shards.get(shard).map(lock)
    }

    fn place(&self, key: Key) -> usize {
        // The index of a shard uses the lowest and the highest bits.
        (key.0 >> 40) as usize & (self.shards.len() - 1)
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.place(key)])
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.budget.cache.give(self.octets());
    }
}

/// What a panic left behind is whole: nothing in a shard panics between two steps of a change.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
