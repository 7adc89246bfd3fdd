//! One cached response: wire bytes without OPT, the places of its TTLs, and its short life.
//!
//! Owns what a hit writes. Shared between threads and never changed but for its counters; reads no
//! clock: every call is told the time.

use super::options::Prefetch;
use super::store::{Key, Side};
use crate::dns::{Class, Message, Query, Rcode, Response, Written, flags};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long a refresh may stay away before another one is begun, in milliseconds: longer than
/// `forward` ever tries (6 s).
const REFRESH_DEADLINE: u64 = 10_000;

/// A cached response.
#[derive(Debug)]
pub(super) struct Entry {
    key: Key,
    side: Side,
    /// The message: TTLs flattened, no OPT, the question uncompressed.
    wire: Box<[u8]>,
    /// The places of the TTLs.
    ttl_places: Box<[u16]>,
    /// The length of the question section.
    question_length: u16,
    rcode: Rcode,
    qclass: Class,
    bits: QueryBits,
    uncompressed_size: u32,
    /// SERVFAIL or NOTIMP: never served beyond its TTL.
    is_failure: bool,
    /// Asked for since the last sweep.
    touched: AtomicBool,
    /// In seconds.
    ttl: u32,
    stored: Duration,
    /// Hits without a long gap; with `last_hit` for `prefetch`.
    hits: AtomicU32,
    /// In milliseconds since the process's fixed moment, plus 1; 0 is never.
    last_hit: AtomicU64,
    /// When the refresh under way was begun, like `last_hit`.
    refresh_begun: AtomicU64,
    /// When a refresh last brought nothing usable, like `last_hit`.
    refresh_failed: AtomicU64,
}

/// The header bits of a query that are part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueryBits {
    /// DO.
    pub(super) dnssec_ok: bool,
    /// CD.
    pub(super) checking_disabled: bool,
}

impl QueryBits {
    /// Those of `query`.
    pub(super) fn of(query: &Query<'_>) -> QueryBits {
        QueryBits {
            dnssec_ok: query.wants_dnssec(),
            checking_disabled: query.flags() & flags::CD != 0,
        }
    }
}

/// What is not in the message itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// The key of the query.
    pub(super) key: Key,
    /// The store it belongs into.
    pub(super) side: Side,
    /// The TTL in seconds that the message shows; at least 1.
    pub(super) ttl: u32,
    /// Now.
    pub(super) stored: Duration,
    /// SERVFAIL or NOTIMP.
    pub(super) is_failure: bool,
    /// [`Message::uncompressed_size`].
    pub(super) uncompressed_size: usize,
}

impl Entry {
    /// An entry for the message of `response`, which must match `query` ([`matches`]).
    pub(super) fn new(
        query: &Query<'_>,
        response: &Response,
        ttl_places: Vec<u16>,
        terms: Terms,
    ) -> Entry {
        Entry {
            key: terms.key,
            side: terms.side,
            wire: response.wire.as_slice().into(),
            ttl_places: ttl_places.into_boxed_slice(),
            question_length: query.question().len() as u16,
            rcode: response.rcode,
            qclass: query.qclass(),
            bits: QueryBits::of(query),
            uncompressed_size: terms.uncompressed_size as u32,
            is_failure: terms.is_failure,
            touched: AtomicBool::new(false),
            ttl: terms.ttl,
            stored: terms.stored,
            hits: AtomicU32::new(0),
            last_hit: AtomicU64::new(0),
            refresh_begun: AtomicU64::new(0),
            refresh_failed: AtomicU64::new(0),
        }
    }

    /// Whether this entry is for `query`: two questions may share a key.
    pub(super) fn is_for(&self, query: &Query<'_>) -> bool {
        let end = 12 + usize::from(self.question_length);
        self.bits == QueryBits::of(query)
            && self.qclass == query.qclass()
            && same_question(&self.wire[12..end], query)
    }

    /// Its key.
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Its store.
    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// Notes that it was asked for.
    pub(super) fn touch(&self) {
        // Reading first leaves the cache line shared between workers.
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was asked for since the last call.
    pub(super) fn take_touch(&self) -> bool {
        self.touched.load(Ordering::Relaxed) && self.touched.swap(false, Ordering::Relaxed)
    }

    /// The TTL that was stored, in seconds.
    pub(super) fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Seconds left; negative when expired.
    pub(super) fn remaining(&self, now: Duration) -> i64 {
        let elapsed = now.saturating_sub(self.stored).as_secs();
        i64::from(self.ttl) - i64::try_from(elapsed).unwrap_or(i64::MAX)
    }

    /// Whether this is a SERVFAIL or NOTIMP.
    pub(super) fn is_failure(&self) -> bool {
        self.is_failure
    }

    /// Whether it may be served, fresh or stale; `window` is in seconds, 0 without `serve_stale`.
    pub(super) fn is_usable(&self, now: Duration, window: u32) -> bool {
        let left = self.remaining(now);
        left > 0 || (!self.is_failure && -left < i64::from(window))
    }

    /// What it counts against the bounds: octets held, bookkeeping excluded.
    pub(super) fn octets(&self) -> usize {
        self.wire.len() + 2 * self.ttl_places.len() + size_of::<Entry>()
    }

    /// Writes the reply to `query` with `ttl` seconds on every record. Allocates nothing when the
    /// buffer is large enough.
    pub(super) fn write(&self, query: &Query<'_>, response: &mut Response, ttl: u32) {
        let wire = &mut response.wire;
        wire.clear();
        wire.extend_from_slice(&self.wire);
        let stored = u16::from_be_bytes([self.wire[2], self.wire[3]]);
        let asked = query.flags();
        // The opcode decides what is echoed (miekg/dns SetReply): only a QUERY's RD and CD are.
        let echoed = if asked & flags::OPCODE == 0 { flags::RD | flags::CD } else { flags::OPCODE };
        let mut word =
            flags::QR | flags::AA | (asked & echoed) | (stored & (flags::RA | flags::RCODE));
        if wants_authentic(query) {
            word |= stored & flags::AD;
        }
        wire[2..4].copy_from_slice(&word.to_be_bytes());
        let question = query.question();
        debug_assert!(self.is_for(query), "an entry answers its own question");
        if question.len() == usize::from(self.question_length) {
            wire[12..12 + question.len()].copy_from_slice(question);
        }
        let octets = ttl.to_be_bytes();
        for &place in &self.ttl_places {
            let place = usize::from(place);
            wire[place..place + 4].copy_from_slice(&octets);
        }
        response.written = Written::Message;
        response.rcode = self.rcode;
        response.error = None;
        response.writer = "cache";
        response.known_size = self.uncompressed_size as usize;
    }

    /// Counts a hit; true when the entry is asked for often enough and nearly over, by `prefetch`.
    pub(super) fn hit(&self, prefetch: &Prefetch, now: Duration) -> bool {
        let moment = milliseconds(now);
        let last = self.last_hit.swap(moment, Ordering::Relaxed);
        let gap = u64::try_from(prefetch.gap.as_millis()).unwrap_or(u64::MAX);
        let hits = if last == 0 || moment.saturating_sub(last) > gap {
            self.hits.store(1, Ordering::Relaxed);
            1
        } else {
            self.hits.fetch_add(1, Ordering::Relaxed).saturating_add(1)
        };
        let threshold = (u64::from(prefetch.percent) * u64::from(self.ttl)).div_ceil(100);
        let left = u64::try_from(self.remaining(now)).unwrap_or(0);
        hits >= prefetch.amount && left <= threshold
    }

    /// Takes over what `previous` counted, so that a popular name stays one.
    pub(super) fn inherit(&self, previous: &Entry, now: Duration) {
        self.hits.store(previous.hits.load(Ordering::Relaxed), Ordering::Relaxed);
        self.last_hit.store(milliseconds(now), Ordering::Relaxed);
    }

    /// True for the one caller that shall refresh the entry now.
    pub(super) fn begin_refresh(&self, now: Duration) -> bool {
        let moment = milliseconds(now);
        let begun = self.refresh_begun.load(Ordering::Relaxed);
        if begun != 0 && moment.saturating_sub(begun) < REFRESH_DEADLINE {
            return false;
        }
        self.refresh_begun
            .compare_exchange(begun, moment, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// The refresh, or the question asked to verify the entry, brought nothing usable.
    pub(super) fn refresh_failed(&self, now: Duration) {
        self.refresh_failed.store(milliseconds(now), Ordering::Relaxed);
    }

    /// Whether it is served expired without asking anybody, with `serve_stale`'s FAILURE_RECHECK:
    /// a refresh failed less than `recheck` ago, or one is under way. Never when that is 0.
    pub(super) fn is_held(&self, now: Duration, recheck: Duration) -> bool {
        let since = |moment: &AtomicU64| match moment.load(Ordering::Relaxed) {
            0 => u64::MAX,
            moment => milliseconds(now).saturating_sub(moment),
        };
        !recheck.is_zero()
            && (u128::from(since(&self.refresh_failed)) < recheck.as_millis()
                || since(&self.refresh_begun) < REFRESH_DEADLINE)
    }

    /// The refresh is over; the next query may begin another.
    pub(super) fn end_refresh(&self) {
        self.refresh_begun.store(0, Ordering::Relaxed);
    }
}

/// Whether the client may see AD (RFC 6840 §5.8): it set AD or DO.
pub(super) fn wants_authentic(query: &Query<'_>) -> bool {
    query.flags() & flags::AD != 0 || query.wants_dnssec()
}

/// Whether `message` is a response to `query`: QR, the one question, the same name and type. The
/// question must be as long as the query's, so that a hit can put the client's spelling in.
pub(super) fn matches(message: &Message<'_>, query: &Query<'_>) -> bool {
    message.flags() & flags::QR != 0
        && message.questions() == 1
        && message
            .wire()
            .get(12..message.question_end())
            .is_some_and(|question| same_question(question, query))
}

/// Same name in any spelling, same type; the class is left out. The length octets of labels are
/// below 64, where spelling has no effect.
fn same_question(question: &[u8], query: &Query<'_>) -> bool {
    let name = query.spelled_name();
    question.len() == name.len() + 4
        && question[..name.len()].eq_ignore_ascii_case(name)
        && question[name.len()..name.len() + 2] == query.qtype().0.to_be_bytes()
}

/// Milliseconds plus 1, so that 0 can mean never.
fn milliseconds(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
}
