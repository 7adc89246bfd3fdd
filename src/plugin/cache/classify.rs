//! How long a response may be kept, by its kind (RFC 2308, docs/plugins/cache.md).
//!
//! Owns the one walk over a response that the cache makes. Never changes the message.

use super::options::MOST_TTL;
use crate::dns::{Message, Query, Rcode, Record, RecordType, Section};
use crate::plugin::kind::{Kind, Signs};
use std::time::Duration;

/// The TTL in seconds of responses that carry none of their own, and of referrals and errors.
const SHORT_TTL: u32 = 5;

/// What one walk over a response finds.
#[derive(Debug)]
pub(super) struct Survey {
    /// The kind.
    pub(super) kind: Kind,
    /// The TTL in seconds before limits: the least of all records, or [`SHORT_TTL`].
    pub(super) ttl: u32,
    /// The places of the TTLs of all records but OPT.
    pub(super) ttl_places: Vec<u16>,
    /// Where the message ends: behind its last record.
    pub(super) end: usize,
    /// The OPT record, if there is any.
    pub(super) opt: OptPlace,
}

/// Where a response has its OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OptPlace {
    /// Nowhere.
    None,
    /// As the last record, from this offset on.
    Last(usize),
    /// Before other records, several times, or in another section than Additional.
    Inside,
}

/// Walks over `message`. `rcode` is the whole one, `unix` the time for signatures.
pub(super) fn survey(message: &Message<'_>, rcode: Rcode, unix: Duration) -> Survey {
    let mut found = Survey {
        kind: Kind::Other,
        ttl: SHORT_TTL,
        ttl_places: Vec::with_capacity(
            [Section::Answer, Section::Authority, Section::Additional]
                .iter()
                .map(|section| usize::from(message.count(*section)))
                .sum::<usize>()
                // A count is a promise that the walk has checked; the bound is for readers.
                .min(message.wire().len() / 11),
        ),
        end: message.question_end(),
        opt: OptPlace::None,
    };
    let mut least = None;
    let mut signs = Signs::default();
    for record in message.records() {
        if found.opt != OptPlace::None {
            found.opt = OptPlace::Inside;
        }
        found.end = record.rdata.end;
        signs.see(message, &record, unix);
        if record.rtype == RecordType::OPT {
            found.opt = match found.opt {
                OptPlace::None if record.is_opt() => OptPlace::Last(record.at),
                _ => OptPlace::Inside,
            };
            continue;
        }
        // A message has at most 65535 octets: the place fits.
        found.ttl_places.push(record.ttl_at as u16);
        let ttl = counted_ttl(record.ttl);
        least = Some(least.map_or(ttl, |least: u32| least.min(ttl)));
    }
    found.kind = signs.kind(message, rcode);
    if matches!(found.kind, Kind::NoError | Kind::NoData | Kind::NameError) {
        found.ttl = least.unwrap_or(SHORT_TTL);
    }
    found
}

/// Whether `message`, of this kind, is all that there is to be said to `query`, whoever asks: it has a record of
/// the type that was asked for, or denies that there is one with a SOA record.
pub(super) fn is_whole(message: &Message<'_>, query: &Query<'_>, kind: Kind) -> bool {
    let is_asked_for = |record: Record| {
        record.section == Section::Answer
            && (record.rtype == query.qtype() || query.qtype() == RecordType::ANY)
    };
    match kind {
        Kind::NoError => message.records().any(is_asked_for),
        Kind::NoData | Kind::NameError => true,
        Kind::Delegation | Kind::ServerError | Kind::Meta | Kind::Other => false,
    }
}

/// A TTL with the top bit set counts as 0 (RFC 2181 §8).
fn counted_ttl(ttl: u32) -> u32 {
    if ttl > MOST_TTL { 0 } else { ttl }
}
