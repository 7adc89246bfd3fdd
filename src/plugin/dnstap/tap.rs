//! The records on their way to one endpoint: a bounded pile between the threads that serve and the
//! one that sends.
//!
//! Owns the bounds and what is dropped beyond them. Never waits for the endpoint, and knows nothing
//! of sockets: `net::dnstap` takes the pile away.

use crate::metrics::Counter;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

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

/// The greatest number of records that wait, for each unit of the directive's QSIZE.
pub const RECORDS_MOST: usize = 10_000;

/// The greatest number of octets that wait, for each unit of QSIZE.
pub const OCTETS_MOST: usize = 8 << 20;

/// What waits for one endpoint, which it shares with all directives that name it alike.
pub struct Tap {
    /// Where it goes.
    pub endpoint: Endpoint,
    /// The send buffer in MiB (TCP).
    pub send_buffer: usize,
    /// Counts what did not fit or did not arrive.
    pub dropped: Counter,
    queue: usize,
    pile: Mutex<Pile>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Pile {
    /// Data frames: each record with its length in four octets before it.
    frames: Vec<u8>,
    records: usize,
}

impl Debug for Tap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Tap {
    /// Nothing waits. `send_buffer` is WBUF, `queue` is QSIZE.
    pub fn new(endpoint: Endpoint, send_buffer: usize, queue: usize, dropped: Counter) -> Tap {
        let pile = Mutex::default();
        Tap { endpoint, send_buffer, dropped, queue, pile, wake: OnceLock::new() }
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
            if pile.records >= records_most || octets > octets_most {
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
    /// that is.
    pub fn take(&self, frames: &mut Vec<u8>) -> usize {
        frames.clear();
        let mut pile = self.lock();
        std::mem::swap(frames, &mut pile.frames);
        std::mem::take(&mut pile.records)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Registry, names};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn tap() -> Tap {
        let dropped = Registry::new(1).counter(&names::DNSTAP_DROPPED, &["x"]);
        Tap::new(Endpoint::Unix("x".to_owned()), 1, 1, dropped)
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
