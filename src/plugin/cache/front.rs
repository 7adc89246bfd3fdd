//! What stands before the stores: one place for each of many keys, read without a lock.
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

/// The places.
pub(super) struct Front {
    /// A power of two.
    count: usize,
    /// Made at the first hit: a block that nobody asks costs nothing.
    places: OnceLock<Box<[ArcSwapOption<Entry>]>>,
}

impl Front {
    /// At least a place for each of `capacity` entries, up to [`PLACES_MOST`].
    pub(super) fn new(capacity: u64) -> Front {
        let count = capacity.min(PLACES_MOST).next_power_of_two() as usize;
        Front { count, places: OnceLock::new() }
    }

    /// The entry in the key's place. It may be another key's: the caller checks the question.
    pub(super) fn look(&self, key: Key) -> Option<Guard<Option<Arc<Entry>>>> {
        Some(self.places.get()?[self.place(key)].load())
    }

    /// Puts an entry that its store has just given out into its key's place.
    pub(super) fn put(&self, entry: &Arc<Entry>) {
        let empty = || (0..self.count).map(|_| ArcSwapOption::const_empty()).collect();
        let places = self.places.get_or_init(empty);
        places[self.place(entry.key())].store(Some(Arc::clone(entry)));
    }

    /// Forgets an entry that leaves its store.
    pub(super) fn remove(&self, entry: &Arc<Entry>) {
        if let Some(places) = self.places.get() {
            let place = &places[self.place(entry.key())];
            let held = place.load();
            if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, entry)) {
                place.compare_and_swap(&held, None);
            }
        }
    }

    /// Forgets every entry that `keeps` does not want: those that came in while they left their
    /// store.
    pub(super) fn sweep(&self, keeps: impl Fn(&Arc<Entry>) -> bool) {
        for place in self.places.get().into_iter().flatten() {
            let held = place.load();
            if held.as_ref().is_some_and(|held| !keeps(held)) {
                place.compare_and_swap(&held, None);
            }
        }
    }

    fn place(&self, key: Key) -> usize {
        key.0 as usize & (self.count - 1)
    }
}
