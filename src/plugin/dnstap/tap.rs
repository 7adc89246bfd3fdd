//! The records on their way to one endpoint: a bounded pile between the threads that serve and the
//! one that sends.
//!
//! Owns the bounds and what is dropped beyond them. Never waits for the endpoint, and knows nothing
//! of sockets: `net::dnstap` takes the pile away.

use crate::metrics::Counter;
use crate::plugin::Budget;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A unix socket's path.
    Unix(String),
    /// `host:port` over TCP.
    Tcp(String),
    /// `host:port` over TLS.
    Tls {
        /// `host:port`.
        address: String,
        /// Whether the certificate must be valid for the host.
        is_verified: bool,
    },
}

impl Endpoint {
    /// The word of Go's `dial` errors.
    pub fn network(&self) -> &'static str {
        match self {
            Endpoint::Unix(_) => "unix",
            Endpoint::Tcp(_) | Endpoint::Tls { .. } => "tcp",
        }
    }

    /// Path or address.
    pub fn address(&self) -> &str {
        match self {
            Endpoint::Unix(address) | Endpoint::Tcp(address) | Endpoint::Tls { address, .. } => {
                address
            }
        }
    }
}

/// The greatest number of records that wait, for each unit of the directive's QUEUE.
pub const RECORDS_MOST: usize = 10_000;

/// The greatest number of octets that wait, for each unit of QUEUE.
pub const OCTETS_MOST: usize = 8 << 20;

/// Octets that an empty pile may keep for the next records, whatever came last.
const KEPT_OCTETS: usize = 64 * 1024;

/// What waits for one endpoint, which it shares with all directives that name it alike.
pub struct Tap {
    /// Where it goes.
    pub endpoint: Endpoint,
    /// The send buffer in MiB (TCP).
    pub send_buffer: usize,
    /// Counts what did not fit or did not arrive.
    pub dropped: Counter,
    queue: usize,
    /// The memory that records of all endpoints share.
    budget: Arc<Budget>,
    pile: Mutex<Pile>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Pile {
    /// Data frames: each record with its length in four octets before it.
    frames: Vec<u8>,
    records: usize,
    /// Octets of those that were taken and are not sent.
    taken: usize,
}

impl Debug for Tap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Tap {
    /// Nothing waits. `send_buffer` is WRITEBUFFER, `queue` is QUEUE, `budget` the memory of all.
    pub fn new(
        endpoint: Endpoint,
        send_buffer: usize,
        queue: usize,
        dropped: Counter,
        budget: Arc<Budget>,
    ) -> Tap {
        let pile = Mutex::default();
        Tap { endpoint, send_buffer, dropped, queue, budget, pile, wake: OnceLock::new() }
    }

    /// Says whom to wake when the pile is no longer empty, and again when it is half full. Once.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A tap has one sender for its whole life.
        let _ = self.wake.set(Box::new(wake));
    }

    /// Puts a record on the pile, or drops and counts it.
    pub(crate) fn push(&self, record: &[u8]) {
        let Ok(length) = u32::try_from(record.len()) else { return self.dropped.increment() };
        let records_most = self.queue.saturating_mul(RECORDS_MOST);
        let octets_most = self.queue.saturating_mul(OCTETS_MOST);
        let (records, octets) = {
            let mut pile = self.lock();
            let octets = pile.frames.len() + 4 + record.len();
            let is_full = pile.records >= records_most || octets > octets_most;
            if is_full || !self.budget.records.take(4 + record.len() as u64) {
                drop(pile);
                return self.dropped.increment();
            }
            pile.frames.extend_from_slice(&length.to_be_bytes());
            pile.frames.extend_from_slice(record);
            pile.records += 1;
            (pile.records, octets)
        };
        let was = octets - 4 - record.len();
        let is_half = records == records_most / 2 || (was..octets).contains(&(octets_most / 2));
        if (records == 1 || is_half)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    /// Takes the whole pile away into `frames`, which it empties first, and says how many records
    /// that is. [`Tap::sent`] ends it.
    pub fn take(&self, frames: &mut Vec<u8>) -> usize {
        frames.clear();
        let mut pile = self.lock();
        std::mem::swap(frames, &mut pile.frames);
        pile.taken += frames.len();
        std::mem::take(&mut pile.records)
    }

    /// What was taken is sent, or lost: empties `frames`, and gives back what a long pile needed.
    pub fn sent(&self, frames: &mut Vec<u8>) {
        let octets = frames.len();
        frames.clear();
        frames.shrink_to(KEPT_OCTETS.max(2 * octets));
        let mut pile = self.lock();
        self.budget.records.give(std::mem::take(&mut pile.taken) as u64);
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().records == 0
    }

    /// A pile has no state between its methods: a poisoned lock is taken all the same.
    fn lock(&self) -> MutexGuard<'_, Pile> {
        self.pile.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let pile = self.lock();
        self.budget.records.give((pile.frames.len() + pile.taken) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Registry, names};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn tap() -> Tap {
        tap_within(Arc::default())
    }

    fn tap_within(budget: Arc<Budget>) -> Tap {
        let dropped = Registry::new(1).counter(&names::DNSTAP_DROPPED, &["x"]);
        Tap::new(Endpoint::Unix("x".to_owned()), 1, 1, dropped, budget)
    }

    #[test]
    fn what_waits_and_what_is_being_sent_keep_to_the_memory_of_records() {
        let budget = Arc::new(Budget::new(Some(1 << 20)));
        let (tap, another) = (tap_within(budget.clone()), tap_within(budget.clone()));
        let record = [0; 1020];
        let fit = budget.records.most() / 1024;
        for _ in 0..fit + 1 {
            tap.push(&record);
        }
        another.push(&record);
        assert_eq!((tap.dropped.value(), another.dropped.value()), (1, 1));
        let mut frames = Vec::new();
        assert_eq!(tap.take(&mut frames) as u64, fit);
        tap.push(&record);
        assert_eq!(tap.dropped.value(), 2, "what is being sent is still there");
        tap.sent(&mut frames);
        assert_eq!((frames.len(), budget.records.used()), (0, 0));
        tap.push(&record);
        another.push(&record);
        drop((tap, another));
        assert_eq!(budget.records.used(), 0);
    }

    #[test]
    fn the_room_of_a_long_pile_is_given_back_once_piles_are_short() {
        let tap = tap();
        let mut frames = Vec::new();
        tap.push(&vec![0; OCTETS_MOST / 2]);
        // Either room is taken in turn.
        for _ in 0..3 {
            assert_eq!(tap.take(&mut frames), 1);
            tap.sent(&mut frames);
            tap.push(b"short");
        }
        assert!(tap.lock().frames.capacity() + frames.capacity() < OCTETS_MOST / 4);
    }

    #[test]
    fn records_stand_behind_their_lengths() {
        let tap = tap();
        tap.push(b"abc");
        tap.push(b"d");
        let mut frames = b"old".to_vec();
        assert_eq!(tap.take(&mut frames), 2);
        assert_eq!(frames, b"\0\0\0\x03abc\0\0\0\x01d");
        assert_eq!(tap.take(&mut frames), 0);
        assert!(frames.is_empty());
    }

    #[test]
    fn beyond_either_bound_records_are_dropped_and_counted() {
        let tap = tap();
        for _ in 0..RECORDS_MOST + 3 {
            tap.push(b"a");
        }
        assert_eq!(tap.dropped.value(), 3);
        assert_eq!(tap.take(&mut Vec::new()), RECORDS_MOST);
        let large = vec![0; OCTETS_MOST / 4];
        for _ in 0..5 {
            tap.push(&large);
        }
        assert_eq!(tap.dropped.value(), 5);
        assert_eq!(tap.take(&mut Vec::new()), 3);
    }

    #[test]
    fn the_sender_is_woken_by_the_first_record_and_by_a_half_full_pile() {
        let tap = tap();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        tap.wake_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        for _ in 0..RECORDS_MOST {
            tap.push(b"a");
        }
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }
}
