//! What stands before the stores: a place for each of many keys, read without a lock.
//!
//! Owns no entry's life: every entry here is in a store too, and goes from here when it goes from
//! there. A hit here allocates nothing and takes part in no bookkeeping; that an entry was asked
//! for is noted in the entry and told to its store by the sweep.

use super::entry::Entry;
use super::store::Key;
use arc_swap::{ArcSwapOption, Guard};
use std::sync::{Arc, OnceLock};

/// The most places (512 KiB of pointers).
const PLACES_MOST: u64 = 65_536;

/// The places, in pairs: a key may stand in either place of its pair, so that two names which meet
/// do not drive each other out.
pub(super) struct Front {
    /// A power of two.
    pairs: usize,
    /// Made when the first entry comes: a block that nobody asks costs nothing.
    places: OnceLock<Box<[Pair]>>,
}

type Pair = [ArcSwapOption<Entry>; 2];

impl Front {
    /// At least a place for each of `capacity` entries, up to [`PLACES_MOST`].
    pub(super) fn new(capacity: u64) -> Front {
        let places = capacity.min(PLACES_MOST).next_power_of_two() as usize;
        Front { pairs: (places / 2).max(1), places: OnceLock::new() }
    }

    /// The entry for the key. Two questions may share a key: the caller checks.
    pub(super) fn look(&self, key: Key) -> Option<Guard<Option<Arc<Entry>>>> {
        self.pair(key)?.iter().map(ArcSwapOption::load).find(|held| has_key(held.as_ref(), key))
    }

    /// Puts an entry that is in its store into a place of its key.
    pub(super) fn put(&self, entry: &Arc<Entry>) {
        let empty = || (0..self.pairs).map(|_| Pair::default()).collect();
        self.places.get_or_init(empty);
        let key = entry.key();
        let Some(pair) = self.pair(key) else { return };
        let held = [0, 1].map(|at| pair[at].load());
        let own = held.iter().position(|held| has_key(held.as_ref(), key));
        let at = own
            .or_else(|| held.iter().position(|held| held.is_none()))
            // Neither is better known to be the colder one.
            .unwrap_or((key.0 >> 63) as usize);
        pair[at].store(Some(Arc::clone(entry)));
    }

    /// Forgets an entry that leaves its store.
    pub(super) fn remove(&self, entry: &Arc<Entry>) {
        for place in self.pair(entry.key()).into_iter().flatten() {
            forget(place, |held| Arc::ptr_eq(held, entry));
        }
    }

    /// Forgets every entry that `keeps` does not want: those that came in while they left their
    /// store.
    pub(super) fn sweep(&self, keeps: impl Fn(&Arc<Entry>) -> bool) {
        for place in self.places.get().into_iter().flatten().flatten() {
            forget(place, |held| !keeps(held));
        }
    }

    fn pair(&self, key: Key) -> Option<&Pair> {
        self.places.get().map(|places| &places[key.0 as usize & (self.pairs - 1)])
    }
}

fn has_key(held: Option<&Arc<Entry>>, key: Key) -> bool {
    held.is_some_and(|held| held.key() == key)
}

fn forget(place: &ArcSwapOption<Entry>, unwanted: impl Fn(&Arc<Entry>) -> bool) {
    let held = place.load();
    if held.as_ref().is_some_and(unwanted) {
        place.compare_and_swap(&held, None);
    }
}
