//! Questions in flight: each is asked upstream once, however many wait for it.
//!
//! Owns the table that all workers share. Never waits and never sends: what a waiting query leaves
//! behind is the caller's type, and so is how it is told.

use crate::dns::{KeptQuery, RecordType, Transport, sizes};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most questions asked at once that others can join; those beyond are asked alone.
pub const QUESTIONS_MOST: usize = 16_384;

/// The most queries that wait for one question; one beyond asks for itself.
pub const WAITERS_PER_QUESTION_MOST: usize = 4_096;

/// Locks to spread the workers over.
const SHARDS: usize = 64;

/// Questions that a shard keeps room for when there are few.
const KEPT_PER_SHARD: usize = 16;

/// What makes two queries one question upstream: whom it goes to, how, and every octet of the
/// message but the id, the name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlightKey(Arc<[u8]>);

impl FlightKey {
    /// The key of `query` towards the upstreams that `target` (a number unique among those alive)
    /// stands for; `udp_limit` is the greatest datagram in octets that a client over UDP takes.
    pub fn new(
        target: usize,
        transport: Transport,
        udp_limit: Option<u16>,
        query: &KeptQuery,
    ) -> FlightKey {
        let wire = query.wire();
        let question_end = query.question_end();
        let mut key = Vec::with_capacity(11 + wire.len());
        key.extend_from_slice(&target.to_ne_bytes());
        key.push(transport as u8);
        key.extend_from_slice(&udp_limit.unwrap_or(0).to_ne_bytes());
        // All but the id.
        let at = key.len();
        let name = sizes::HEADER - 2..question_end - sizes::TYPE_AND_CLASS - 2;
        let name = at + name.start..at + name.end;
        key.extend_from_slice(wire.get(2..).unwrap_or_default());
        if let Some(name) = key.get_mut(name) {
            // The lengths of labels are below the letters.
            name.make_ascii_lowercase();
        }
        // The probe of `loop` must go round: joined to itself it would wait for itself, and the
        // loop would never be noticed.
        if query.qtype() == RecordType::HINFO {
            key.extend_from_slice(wire.get(..2).unwrap_or_default());
        }
        FlightKey(key.into())
    }
}

/// What a query is to its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first: it asks, and [`Flights::land`]s when it is done, however that ends.
    Leader,
    /// One asked already: what it left will be told.
    Follower,
    /// A bound is reached: it asks for itself and tells nobody.
    Alone,
}

/// The questions in flight of the whole node; `W` is what a waiting query leaves behind.
#[derive(Debug)]
pub struct Flights<W> {
    hasher: foldhash::fast::RandomState,
    shards: Box<[Mutex<Shard<W>>]>,
}

type Shard<W> = HashMap<FlightKey, Vec<W>, foldhash::fast::RandomState>;

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Flights::new()
    }
}

impl<W> Flights<W> {
    /// Nothing in flight.
    pub fn new() -> Flights<W> {
        Flights {
            hasher: foldhash::fast::RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Joins the question under `key`, leaving `waiter()` when another asks it already.
    pub fn join(&self, key: &FlightKey, waiter: impl FnOnce() -> W) -> Role {
        let mut shard = self.shard(key);
        if let Some(waiting) = shard.get_mut(key) {
            if waiting.len() >= WAITERS_PER_QUESTION_MOST {
                return Role::Alone;
            }
            waiting.push(waiter());
            return Role::Follower;
        }
        if shard.len() >= QUESTIONS_MOST / SHARDS {
            return Role::Alone;
        }
        shard.insert(key.clone(), Vec::new());
        Role::Leader
    }

    /// The leader's question is over: those who wait for it, in the order they came. Whoever asks
    /// the same from now on leads anew.
    pub fn land(&self, key: &FlightKey) -> Vec<W> {
        let mut shard = self.shard(key);
        let waiting = shard.remove(key).unwrap_or_default();
        // After a storm the room that it took goes back.
        if shard.capacity() > KEPT_PER_SHARD && shard.len() < shard.capacity() / 8 {
            let room = 2 * shard.len();
            shard.shrink_to(room);
        }
        waiting
    }

    /// How many questions are in flight.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, key: &FlightKey) -> MutexGuard<'_, Shard<W>> {
        // The shard's own table uses the low and the top bits of a hash; these lie between.
        let hash = self.hasher.hash_one(key);
        lock(&self.shards[(hash >> 32) as usize % SHARDS])
    }
}

/// A poisoned lock is taken all the same: a table of waiters has no state between its methods.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Class, Query};

    fn query(name: &str, id: u16) -> Query<'static> {
        let mut query = Query::new(&name.parse().unwrap(), RecordType::A, Class::IN);
        query.set_id(id);
        query
    }

    fn key(name: &str, id: u16) -> FlightKey {
        FlightKey::new(1, Transport::Udp, Some(512), &query(name, id).keep())
    }

    #[test]
    fn a_probe_for_loops_never_joins_itself() {
        let flights = Flights::new();
        for id in 1..4 {
            let name = "1.2.".parse().unwrap();
            let mut query = Query::new(&name, RecordType::HINFO, Class::IN);
            query.set_id(id);
            let key = FlightKey::new(1, Transport::Udp, Some(512), &query.keep());
            assert_eq!(flights.join(&key, || id), Role::Leader);
        }
    }

    #[test]
    fn the_first_leads_and_the_others_are_told_in_order() {
        let flights = Flights::new();
        assert_eq!(flights.join(&key("a.test.", 1), || 1), Role::Leader);
        assert_eq!(flights.join(&key("a.test.", 2), || 2), Role::Follower);
        assert_eq!(flights.join(&key("a.test.", 3), || 3), Role::Follower);
        assert_eq!(flights.land(&key("a.test.", 4)), [2, 3]);
        assert_eq!(flights.count(), 0);
        assert_eq!(flights.join(&key("a.test.", 5), || 5), Role::Leader);
    }

    #[test]
    fn another_name_target_transport_or_flag_is_another_question() {
        let flights = Flights::new();
        let asked = query("a.test.", 1);
        let mut no_recursion = Query::new(asked.name(), RecordType::A, Class::IN);
        no_recursion.set_id(1);
        no_recursion.set_flags(0);
        let base = asked.keep();
        for key in [
            FlightKey::new(1, Transport::Udp, Some(512), &base),
            FlightKey::new(2, Transport::Udp, Some(512), &base),
            FlightKey::new(1, Transport::Tcp, Some(512), &base),
            FlightKey::new(1, Transport::Udp, Some(512), &query("b.test.", 1).keep()),
            FlightKey::new(1, Transport::Udp, Some(512), &no_recursion.keep()),
            FlightKey::new(1, Transport::Udp, Some(1232), &base),
            FlightKey::new(1, Transport::Udp, Some(u16::MAX), &base),
            FlightKey::new(1, Transport::Udp, None, &base),
        ] {
            assert_eq!(flights.join(&key, || ()), Role::Leader);
        }
        assert_eq!(flights.count(), 8);
    }

    #[test]
    fn a_question_with_too_many_waiters_is_asked_alone() {
        let flights = Flights::new();
        flights.join(&key("a.test.", 1), || ());
        for _ in 0..WAITERS_PER_QUESTION_MOST {
            assert_eq!(flights.join(&key("a.test.", 1), || ()), Role::Follower);
        }
        assert_eq!(flights.join(&key("a.test.", 1), || ()), Role::Alone);
        assert_eq!(flights.land(&key("a.test.", 1)).len(), WAITERS_PER_QUESTION_MOST);
    }

    #[test]
    fn the_number_of_questions_is_bounded() {
        let flights = Flights::new();
        for number in 0..2 * QUESTIONS_MOST {
            flights.join(&key(&format!("n{number}.test."), 1), || ());
        }
        assert!(flights.count() <= QUESTIONS_MOST);
        assert!(flights.count() > QUESTIONS_MOST / 2);
    }
}
