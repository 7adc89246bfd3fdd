//! Places for the queries that wait, and how many of them each client has.
//!
//! Owns the counts, which all workers share. Clients are told apart by a hash of their addresses: two that meet
//! there count as one, which matters only where places are few.

use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A client may have so many times as many places as are free. One that asks for all of them gets four of five, and
/// several get less each: some are left for those who ask seldom, whoever floods.
const TIMES_FREE: usize = 4;

/// Counts of clients.
const COUNTS: u16 = 1_024;

/// The places.
pub(super) struct Places {
    most: usize,
    taken: AtomicUsize,
    of_clients: Box<[AtomicUsize]>,
    hasher: RandomState,
}

/// A place that was taken, by where its client is counted; given back by [`Places::give`].
#[derive(Debug)]
pub(super) struct Place(u16);

impl Places {
    /// So many, all free.
    pub(super) fn new(most: usize) -> Places {
        Places {
            most,
            taken: AtomicUsize::new(0),
            of_clients: (0..COUNTS).map(|_| AtomicUsize::new(0)).collect(),
            hasher: RandomState::default(),
        }
    }

    /// A place for a query of `client`; `None` when there is none for it.
    pub(super) fn take(&self, client: IpAddr) -> Option<Place> {
        let place = Place(self.hasher.hash_one(client) as u16 % COUNTS);
        let free = self.most.saturating_sub(self.taken.fetch_add(1, Ordering::Relaxed));
        let own = self.of_clients[usize::from(place.0)].fetch_add(1, Ordering::Relaxed);
        if !may_have_more(own, free) {
            self.give(&place);
            return None;
        }
        Some(place)
    }

    /// How many others the client of a place has.
    pub(super) fn others_of(&self, place: &Place) -> usize {
        self.of_clients[usize::from(place.0)].load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Gives a place back.
    pub(super) fn give(&self, place: &Place) {
        self.of_clients[usize::from(place.0)].fetch_sub(1, Ordering::Relaxed);
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Whether a client that has so many places may have one more, where so many are free.
pub(super) fn may_have_more(own: usize, free: usize) -> bool {
    own < free.saturating_mul(TIMES_FREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_client_that_takes_all_it_can_leaves_places_for_others() {
        let places = Places::new(1_000);
        let took = |client| std::iter::from_fn(|| places.take(client)).collect::<Vec<_>>();
        let first = took(client(1));
        assert_eq!(first.len(), 800);
        let second = took(client(2));
        assert_eq!(second.len(), 160);
        // The next one has its turn, also behind both.
        assert!(places.take(client(3)).is_some());
        assert!(places.take(client(1)).is_none());
        for place in first.iter().chain(&second) {
            places.give(place);
        }
        assert_eq!(places.taken(), 1);
        assert!(places.take(client(1)).is_some());
    }

    #[test]
    fn there_are_no_more_places_than_there_are() {
        let places = Places::new(3);
        let took = (0..=255).filter_map(|last| places.take(client(last))).count();
        assert_eq!((took, places.taken()), (3, 3));
    }
}
