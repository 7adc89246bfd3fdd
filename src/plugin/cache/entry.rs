//! One cached response: wire bytes without OPT, the places of its TTLs, and its short life.
//!
//! Owns what a hit writes. Stands in its shard's slab, behind the shard's lock, so that its counters
//! are plain numbers; what is as long as the message is one allocation. Reads no clock: every call is
//! told the time.

use super::options::Prefetch;
use super::shard::SLOT_OCTETS;
use super::store::{Key, Side};
use crate::dns::{Edns, Message, Query, Rcode, Response, Written, flags, options, sizes};
use std::num::NonZeroU32;
use std::time::Duration;

/// How long a refresh may stay away before another one is begun, in milliseconds: longer than
/// `forward` ever tries (6 s).
const REFRESH_DEADLINE: u64 = 10_000;

/// What an entry holds beside its body: its place in the slab, its share of the index and of what the
/// slab keeps free, the allocator's own.
const OVERHEAD: usize = SLOT_OCTETS + 40;

/// The most that [`Entry::touch`] counts to.
const MOST_ASKED: u8 = 3;

/// A cached response.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    key: Key,
    /// The places of the TTLs, two octets each, then the message: TTLs flattened, no OPT, the
    /// question uncompressed, in lower case and with the query's class.
    body: Box<[u8]>,
    /// As in [`Terms::stored`].
    stored: i64,
    /// In seconds.
    ttl: u32,
    uncompressed_size: u32,
    /// Hits without a long gap; with `last_hit` for `prefetch`.
    hits: u32,
    last_hit: Moment,
    /// When the refresh under way was begun.
    refresh_begun: Moment,
    /// When a refresh last brought nothing usable.
    refresh_failed: Moment,
    rcode: Rcode,
    /// How many TTLs there are.
    places: u16,
    bits: QueryBits,
    side: Side,
    /// SERVFAIL or NOTIMP: never served beyond its TTL.
    is_failure: bool,
    /// How often it was asked for lately, for the eviction: 0 to [`MOST_ASKED`].
    asked: u8,
    /// It stands in its shard's main queue, no longer among the newcomers.
    pub(super) is_main: bool,
}

/// A moment in milliseconds since the process's fixed moment, of which the lower 32 bits are kept:
/// what was more than 49 days ago may look like a moment ago, which costs a refresh its turn for as
/// long as that moment lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Moment(Option<NonZeroU32>);

impl Moment {
    fn at(now: Duration) -> Moment {
        Moment::before(now, 0)
    }

    fn before(now: Duration, ago: u64) -> Moment {
        // The lowest bit tells a moment from never.
        Moment(NonZeroU32::new((milliseconds(now) as u32).wrapping_sub(ago as u32) | 1))
    }

    /// Milliseconds from it until now; `u64::MAX` when it never was.
    fn since(self, now: Duration) -> u64 {
        match self.0 {
            None => u64::MAX,
            Some(moment) => u64::from((milliseconds(now) as u32 | 1).wrapping_sub(moment.get())),
        }
    }
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
    /// When it was stored, in milliseconds since the process's fixed moment; below 0 when it is
    /// older than the process.
    pub(super) stored: i64,
    /// SERVFAIL or NOTIMP.
    pub(super) is_failure: bool,
    /// The whole RCODE, 12 bits.
    pub(super) rcode: Rcode,
    /// DO and CD of the query.
    pub(super) bits: QueryBits,
    /// [`Message::uncompressed_size`].
    pub(super) uncompressed_size: usize,
}

impl Entry {
    /// An entry for `message`, whose question is uncompressed, in lower case and of the query's
    /// class, and whose TTLs stand at `places`.
    pub(super) fn new(message: &[u8], places: &[u16], terms: Terms) -> Entry {
        let mut body = Vec::with_capacity(2 * places.len() + message.len());
        body.extend(places.iter().flat_map(|place| place.to_ne_bytes()));
        body.extend_from_slice(message);
        Entry {
            key: terms.key,
            body: body.into_boxed_slice(),
            stored: terms.stored,
            ttl: terms.ttl,
            uncompressed_size: terms.uncompressed_size as u32,
            hits: 0,
            last_hit: Moment::default(),
            refresh_begun: Moment::default(),
            refresh_failed: Moment::default(),
            rcode: terms.rcode,
            places: places.len() as u16,
            bits: terms.bits,
            side: terms.side,
            is_failure: terms.is_failure,
            asked: 0,
            is_main: false,
        }
    }

    /// An entry for the message of `response`, which must match `query` ([`matches()`]).
    pub(super) fn answering(
        query: &Query<'_>,
        response: &Response,
        places: &[u16],
        terms: Terms,
    ) -> Entry {
        let mut entry = Entry::new(&response.wire, places, terms);
        let name = query.name().as_bytes();
        let question = &mut entry.body[2 * places.len() + sizes::HEADER..];
        let question = &mut question[..name.len() + sizes::TYPE_AND_CLASS];
        question[..name.len()].copy_from_slice(name);
        question[name.len()..].copy_from_slice(type_and_class(query));
        entry
    }

    /// The message as it is kept.
    pub(super) fn wire(&self) -> &[u8] {
        &self.body[2 * usize::from(self.places)..]
    }

    /// The whole RCODE.
    pub(super) fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// The header bits of the queries that it answers.
    pub(super) fn bits(&self) -> QueryBits {
        self.bits
    }

    /// As in [`Terms::stored`].
    pub(super) fn stored(&self) -> i64 {
        self.stored
    }

    /// How long ago it was stored, in milliseconds.
    pub(super) fn age(&self, now: Duration) -> u64 {
        u64::try_from(milliseconds(now) - self.stored).unwrap_or(0)
    }

    /// Hits without a long gap, and how long ago the last was, in milliseconds.
    pub(super) fn popularity(&self, now: Duration) -> (u32, Option<u64>) {
        (self.hits, Some(self.last_hit.since(now)).filter(|since| *since != u64::MAX))
    }

    /// Sets what [`Entry::popularity`] says.
    pub(super) fn set_popularity(&mut self, hits: u32, last_hit: Option<u64>, now: Duration) {
        self.hits = hits;
        self.last_hit = last_hit.map_or(Moment::default(), |ago| Moment::before(now, ago));
    }

    /// Whether this entry is for `query`: two questions may share a key.
    pub(super) fn is_for(&self, query: &Query<'_>) -> bool {
        let name = query.name().as_bytes();
        // A name ends itself, so a longer one cannot begin like this one.
        self.bits == QueryBits::of(query)
            && self.wire()[sizes::HEADER..]
                .strip_prefix(name)
                .is_some_and(|behind| behind.starts_with(type_and_class(query)))
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
    pub(super) fn touch(&mut self) {
        self.asked = MOST_ASKED.min(self.asked + 1);
    }

    /// How often it was asked for lately: 0 to 3.
    pub(super) fn asked(&self) -> u8 {
        self.asked
    }

    /// Sets what [`Entry::asked`] says.
    pub(super) fn set_asked(&mut self, asked: u8) {
        self.asked = asked.min(MOST_ASKED);
    }

    /// The TTL that was stored, in seconds.
    pub(super) fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Seconds left; negative when expired.
    pub(super) fn remaining(&self, now: Duration) -> i64 {
        i64::from(self.ttl) - (milliseconds(now) - self.stored).max(0) / 1000
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

    /// What it counts against the bounds: octets held, its share of the tables included.
    pub(super) fn octets(&self) -> usize {
        self.body.len() + OVERHEAD
    }

    /// Writes the reply to `query` with `ttl` seconds on every record. Allocates nothing when the
    /// buffer is large enough.
    pub(super) fn write(&self, query: &Query<'_>, response: &mut Response, ttl: u32) {
        let wire = &mut response.wire;
        wire.clear();
        let (places, kept) = self.body.split_at(2 * usize::from(self.places));
        wire.extend_from_slice(kept);
        let stored = u16::from_be_bytes([wire[2], wire[3]]);
        let asked = query.flags();
        // The opcode decides what is echoed (miekg/dns SetReply): only a QUERY's RD and CD are.
        let echoed = if asked & flags::OPCODE == 0 { flags::RD | flags::CD } else { flags::OPCODE };
        let mut word =
            flags::QR | flags::AA | (asked & echoed) | (stored & (flags::RA | flags::RCODE));
        if wants_authentic(query) {
            word |= stored & flags::AD;
        }
        wire[flags::PLACE].copy_from_slice(&word.to_be_bytes());
        let question = query.question();
        debug_assert!(self.is_for(query), "an entry answers its own question");
        wire[sizes::HEADER..][..question.len()].copy_from_slice(question);
        let octets = ttl.to_be_bytes();
        for place in places.as_chunks::<2>().0 {
            let place = usize::from(u16::from_ne_bytes(*place));
            wire[place..place + 4].copy_from_slice(&octets);
        }
        response.written = Written::Message;
        response.rcode = self.rcode;
        response.error = None;
        response.writer = "cache";
        response.known_size = self.uncompressed_size as usize;
    }

    /// Counts a hit; true when the entry is asked for often enough and nearly over, by `prefetch`.
    pub(super) fn hit(&mut self, prefetch: &Prefetch, now: Duration) -> bool {
        let gap = self.last_hit.since(now);
        self.last_hit = Moment::at(now);
        self.hits = if u128::from(gap) > prefetch.gap.as_millis() {
            1
        } else {
            self.hits.saturating_add(1)
        };
        let threshold = (u64::from(prefetch.percent) * u64::from(self.ttl)).div_ceil(100);
        let left = u64::try_from(self.remaining(now)).unwrap_or(0);
        self.hits >= prefetch.amount && left <= threshold
    }

    /// Takes over what `previous` counted, so that a popular name stays one.
    pub(super) fn inherit(&mut self, previous: &Entry, now: Duration) {
        self.hits = previous.hits;
        self.last_hit = Moment::at(now);
    }

    /// True for the one caller that shall refresh the entry now.
    pub(super) fn begin_refresh(&mut self, now: Duration) -> bool {
        if self.refresh_begun.since(now) < REFRESH_DEADLINE {
            return false;
        }
        self.refresh_begun = Moment::at(now);
        true
    }

    /// The refresh, or the question asked to verify the entry, brought nothing usable.
    pub(super) fn refresh_failed(&mut self, now: Duration) {
        self.refresh_failed = Moment::at(now);
    }

    /// Whether it is served expired without asking anybody, with `serve_stale`'s FAILURE_RECHECK:
    /// a refresh failed less than `recheck` ago, or one is under way. Never when that is 0.
    pub(super) fn is_held(&self, now: Duration, recheck: Duration) -> bool {
        !recheck.is_zero()
            && (u128::from(self.refresh_failed.since(now)) < recheck.as_millis()
                || self.refresh_begun.since(now) < REFRESH_DEADLINE)
    }

    /// The refresh is over; the next query may begin another.
    pub(super) fn end_refresh(&mut self) {
        self.refresh_begun = Moment::default();
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
        && same_question(message.question_section(), query)
}

/// Whether `message` answers the clients of one network alone: the client of `query` told of its network, and
/// upstream says that others get another answer (RFC 7871 §7.3.1). It may tell it to nobody else.
pub(super) fn is_for_one_network(message: &Message<'_>, query: &Query<'_>) -> bool {
    // Behind two octets for the family and one for the prefix that was asked with, that of the answer.
    const SCOPE: usize = 3;
    let network = |opt: Option<&Edns>, wire| {
        opt.and_then(|opt| opt.each_option(wire).find(|(code, _)| *code == options::CLIENT_SUBNET))
    };
    network(query.edns(), query.wire()).is_some()
        && network(message.edns().as_ref(), message.wire())
            .is_some_and(|(_, data)| data.get(SCOPE).is_some_and(|scope| *scope != 0))
}

/// Same name in any spelling, same type; the class is left out. The length octets of labels are
/// below 64, where spelling has no effect.
fn same_question(question: &[u8], query: &Query<'_>) -> bool {
    let name = query.spelled_name();
    question.len() == name.len() + sizes::TYPE_AND_CLASS
        && question[..name.len()].eq_ignore_ascii_case(name)
        && question[name.len()..name.len() + 2] == query.qtype().0.to_be_bytes()
}

/// QTYPE and QCLASS as they stand in the question.
fn type_and_class<'q>(query: &'q Query<'_>) -> &'q [u8] {
    let question = query.question();
    &question[question.len() - sizes::TYPE_AND_CLASS..]
}

/// Whole milliseconds since the process's fixed moment, at most a quarter of what the type holds:
/// differences never overflow.
pub(super) fn milliseconds(now: Duration) -> i64 {
    let seconds = now.as_secs().min(i64::MAX as u64 / 4000) as i64;
    seconds * 1000 + i64::from(now.subsec_millis())
}
