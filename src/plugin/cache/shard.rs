//! One shard of a store: a slab of entries, an index over it, and who has to go first.
//!
//! Owns the order of eviction (S3-FIFO): a newcomer stands in a short queue, and what is asked for
//! while it stands there moves to the main queue; there, what was asked for since its last turn gets
//! another one. So names that are asked for once do not drive out those that are asked for always.
//! Knows no lock: its store has one around it.

use super::entry::Entry;
use super::ghost::Ghost;
use super::store::{Key, Side};
use crate::dns::Query;
use hashbrown::HashTable;
use std::time::Duration;

/// Newcomers may take one place in this many.
const NEWCOMERS: usize = 10;

/// The most entries that an eviction looks at: what it finds last goes, however often it was asked
/// for.
const LOOKED_AT_MOST: usize = 64;

/// No slot.
const NONE: u32 = u32::MAX;

/// A place in the slab.
struct Slot {
    /// `None` when free; then `next` leads to the next free one.
    entry: Option<Entry>,
    next: u32,
    previous: u32,
}

/// Octets of a place.
pub(super) const SLOT_OCTETS: usize = size_of::<Slot>();

/// Slots in the order they came, linked through the slab.
#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
    length: usize,
}

impl Queue {
    const EMPTY: Queue = Queue { first: NONE, last: NONE, length: 0 };
}

/// What a shard knows of one side.
struct Half {
    newcomers: Queue,
    main: Queue,
    ghost: Ghost,
}

impl Half {
    /// The queue that an entry stands in.
    fn queue_of(&mut self, entry: &Entry) -> &mut Queue {
        if entry.is_main { &mut self.main } else { &mut self.newcomers }
    }
}

/// The entries for one query in both stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pair {
    success: Option<u32>,
    denial: Option<u32>,
}

impl Pair {
    /// The slot of one side.
    pub(super) fn side(self, side: Side) -> Option<u32> {
        match side {
            Side::Success => self.success,
            Side::Denial => self.denial,
        }
    }
}

/// A part of a store.
pub(super) struct Shard {
    index: HashTable<u32>,
    slots: Vec<Slot>,
    /// The first free slot.
    free: u32,
    /// Success, denial.
    halves: [Half; 2],
}

impl Shard {
    /// An empty shard that will hold about so many entries of each side.
    pub(super) fn new(success: usize, denial: usize) -> Shard {
        let half = |capacity| Half {
            newcomers: Queue::EMPTY,
            main: Queue::EMPTY,
            ghost: Ghost::new(capacity),
        };
        Shard {
            index: HashTable::new(),
            slots: Vec::new(),
            free: NONE,
            halves: [half(success), half(denial)],
        }
    }

    /// The slots of the entries for `query`, whatever their age.
    pub(super) fn find(&self, key: Key, query: &Query<'_>) -> Pair {
        let mut found = Pair::default();
        for &slot in self.index.iter_hash(key.0) {
            if let Some(entry) = self.entry(slot)
                && entry.key() == key
                && entry.is_for(query)
            {
                match entry.side() {
                    Side::Success => found.success = Some(slot),
                    Side::Denial => found.denial = Some(slot),
                }
            }
        }
        found
    }

    /// The entry in a slot.
    pub(super) fn entry(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize)?.entry.as_ref()
    }

    /// The entry in a slot, to be changed.
    pub(super) fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize)?.entry.as_mut()
    }

    /// The slot that holds the key's entry of this side.
    pub(super) fn holder(&self, key: Key, side: Side) -> Option<u32> {
        let is_it =
            |slot: &u32| self.entry(*slot).is_some_and(|e| e.key() == key && e.side() == side);
        self.index.find(key.0, is_it).copied()
    }

    /// Puts `entry` in the place of the one in `slot`, which has its key and side and is given back.
    pub(super) fn replace(&mut self, slot: u32, mut entry: Entry) -> Option<Entry> {
        let place = self.slots.get_mut(slot as usize)?.entry.as_mut()?;
        entry.set_asked(place.asked());
        entry.is_main = place.is_main;
        Some(std::mem::replace(place, entry))
    }

    /// Puts in an entry whose key and side are not here yet.
    pub(super) fn insert(&mut self, mut entry: Entry) {
        let (key, half) = (entry.key(), &mut self.halves[entry.side() as usize]);
        // Who was here lately was let go too early.
        entry.is_main = half.ghost.take(key);
        let slot = Slot { entry: Some(entry), next: NONE, previous: NONE };
        let at = match self.slots.get_mut(self.free as usize) {
            Some(place) => {
                let at = self.free;
                self.free = place.next;
                *place = slot;
                at
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    // Doubling would waste a third of the slab on average.
                    self.slots.reserve_exact(self.slots.len() / 4 + 4);
                }
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(key.0, at, |&slot| hash(slots, slot));
        self.push(at);
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Entry> {
        let key = self.entry(slot)?.key();
        self.unlink(slot);
        if let Ok(found) = self.index.find_entry(key.0, |&at| at == slot) {
            found.remove();
        }
        let place = self.slots.get_mut(slot as usize)?;
        place.next = self.free;
        self.free = slot;
        place.entry.take()
    }

    /// Takes out the entry of this side that can best be spared; `None` when there is none.
    pub(super) fn evict(&mut self, side: Side, now: Duration, window: u32) -> Option<Entry> {
        for looked_at in 1..=LOOKED_AT_MOST {
            let half = &self.halves[side as usize];
            let all = half.newcomers.length + half.main.length;
            let from_main = half.newcomers.length <= all / NEWCOMERS && half.main.length > 0;
            let slot = if from_main { half.main.first } else { half.newcomers.first };
            let entry = self.entry_mut(slot)?;
            let asked = entry.asked();
            if asked == 0 || looked_at == LOOKED_AT_MOST || !entry.is_usable(now, window) {
                let gone = self.remove(slot);
                if let Some(gone) = &gone
                    && !from_main
                {
                    self.halves[side as usize].ghost.put(gone.key());
                }
                return gone;
            }
            entry.set_asked(if from_main { asked - 1 } else { 0 });
            self.unlink(slot);
            self.entry_mut(slot)?.is_main = true;
            self.push(slot);
        }
        None
    }

    /// Takes out what can never be served again among `count` slots from `start` on; what was asked
    /// for is remembered, as it will come again. Gives each to `gone`. The slot to go on from, or
    /// `None` at the end.
    pub(super) fn sweep(
        &mut self,
        start: usize,
        count: usize,
        (now, window): (Duration, u32),
        mut gone: impl FnMut(Entry),
    ) -> Option<usize> {
        let end = self.slots.len().min(start.saturating_add(count));
        for slot in start..end {
            let slot = slot as u32;
            if self.entry(slot).is_some_and(|entry| !entry.is_usable(now, window))
                && let Some(entry) = self.remove(slot)
            {
                if entry.asked() > 0 {
                    self.halves[entry.side() as usize].ghost.put(entry.key());
                }
                gone(entry);
            }
        }
        if end < self.slots.len() {
            return Some(end);
        }
        self.give_back();
        None
    }

    /// The entries in `count` slots from `start` on, and where to go on, or `None` at the end.
    pub(super) fn slice(
        &self,
        start: usize,
        count: usize,
    ) -> (impl Iterator<Item = &Entry>, Option<usize>) {
        let end = self.slots.len().min(start.saturating_add(count));
        let slots = self.slots.get(start..end).unwrap_or_default();
        (
            slots.iter().filter_map(|slot| slot.entry.as_ref()),
            (end < self.slots.len()).then_some(end),
        )
    }

    /// How many places the slab has, free ones included.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    /// Gives memory back when hardly anything is left of what once was here.
    fn give_back(&mut self) {
        let live = self.index.len();
        if self.slots.len() < 64 || live > self.slots.len() / 4 {
            return;
        }
        let mut slots = Vec::with_capacity(live + live / 4 + 4);
        let mut order = Vec::with_capacity(live);
        for half in &self.halves {
            for queue in [half.newcomers, half.main] {
                let mut slot = queue.first;
                while let Some(place) = self.slots.get(slot as usize) {
                    order.push(slot);
                    slot = place.next;
                }
            }
        }
        for slot in order {
            let place = &mut self.slots[slot as usize];
            slots.push(Slot { entry: place.entry.take(), next: NONE, previous: NONE });
        }
        self.slots = slots;
        self.free = NONE;
        self.index = HashTable::with_capacity(live);
        for half in &mut self.halves {
            (half.newcomers, half.main) = (Queue::EMPTY, Queue::EMPTY);
        }
        for slot in 0..self.slots.len() as u32 {
            let slots = &self.slots;
            self.index.insert_unique(hash(slots, slot), slot, |&slot| hash(slots, slot));
            self.push(slot);
        }
    }

    /// Links a slot to the end of its queue.
    fn push(&mut self, at: u32) {
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        let Some(entry) = &slot.entry else { return };
        let queue = self.halves[entry.side() as usize].queue_of(entry);
        slot.next = NONE;
        slot.previous = std::mem::replace(&mut queue.last, at);
        queue.length += 1;
        let previous = slot.previous;
        match self.slots.get_mut(previous as usize) {
            Some(previous) => previous.next = at,
            None => queue.first = at,
        }
    }

    /// Takes a slot out of its queue.
    fn unlink(&mut self, at: u32) {
        let Some(slot) = self.slots.get(at as usize) else { return };
        let Some(entry) = &slot.entry else { return };
        let (next, previous) = (slot.next, slot.previous);
        let queue = self.halves[entry.side() as usize].queue_of(entry);
        queue.length -= 1;
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.next = next,
            None => queue.first = next,
        }
        match self.slots.get_mut(next as usize) {
            Some(slot) => slot.previous = previous,
            None => queue.last = previous,
        }
    }
}

fn hash(slots: &[Slot], slot: u32) -> u64 {
    let entry = slots.get(slot as usize).and_then(|slot| slot.entry.as_ref());
    entry.map_or(0, |entry| entry.key().0)
}
