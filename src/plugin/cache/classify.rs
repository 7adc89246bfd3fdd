//! What kind of response a message is, and how long it may be kept (spec/coredns.md §2.4).
//!
//! Owns the one walk over a response that the cache makes. Never changes the message.

use super::options::MOST_TTL;
use crate::dns::{Edns, Message, Opcode, Rcode, Record, RecordType, Section, flags};
use std::time::Duration;

/// The TTL in seconds of responses that carry none of their own, and of referrals and errors.
const SHORT_TTL: u32 = 5;

/// The kinds of responses that are treated differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// NOERROR with an answer, or with nothing at all.
    NoError,
    /// NOERROR without answer, with NS records: a referral.
    Delegation,
    /// NOERROR without answer, with a SOA record (RFC 2308 §2.2).
    NoData,
    /// NXDOMAIN with a SOA record (RFC 2308 §2.1).
    NameError,
    /// SERVFAIL or NOTIMP.
    ServerError,
    /// Never kept: other rcodes, signatures out of their time, transfers, notifications, updates.
    Other,
}

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
    /// Before other records, or several times.
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
    let (mut soa, mut ns, mut bad_signature, mut dnssec) = (false, false, false, false);
    for record in message.records() {
        if found.opt != OptPlace::None {
            found.opt = OptPlace::Inside;
        }
        found.end = record.rdata.end;
        if record.is_opt() {
            if found.opt == OptPlace::None {
                found.opt = OptPlace::Last(record.at);
            }
            dnssec |= record.ttl & u32::from(Edns::DO) != 0;
            continue;
        }
        // A message has at most 65535 octets: the place fits.
        found.ttl_places.push(record.ttl_at as u16);
        let ttl = counted_ttl(record.ttl);
        least = Some(least.map_or(ttl, |least: u32| least.min(ttl)));
        match (record.section, record.rtype) {
            (Section::Authority, RecordType::SOA) => soa = true,
            (Section::Authority, RecordType::NS) => ns = true,
            (_, RecordType::RRSIG) => bad_signature |= !is_valid(message, &record, unix),
            _ => {}
        }
    }
    found.kind = kind(message, rcode, soa, ns, dnssec && bad_signature);
    if matches!(found.kind, Kind::NoError | Kind::NoData | Kind::NameError) {
        found.ttl = least.unwrap_or(SHORT_TTL);
    }
    found
}

/// A TTL with the top bit set counts as 0 (RFC 2181 §8).
fn counted_ttl(ttl: u32) -> u32 {
    if ttl > MOST_TTL { 0 } else { ttl }
}

#[allow(clippy::fn_params_excessive_bools)] // The findings of the one walk, in their order of weight.
fn kind(message: &Message<'_>, rcode: Rcode, soa: bool, ns: bool, bad_signature: bool) -> Kind {
    let opcode = Opcode(((message.flags() & flags::OPCODE) >> 11) as u8);
    let transfer = matches!(message.question(), Some((_, RecordType::AXFR | RecordType::IXFR, _)));
    if matches!(opcode, Opcode::UPDATE | Opcode::NOTIFY) || transfer || bad_signature {
        return Kind::Other;
    }
    match rcode {
        Rcode::NOERROR if message.count(Section::Answer) > 0 => Kind::NoError,
        Rcode::NOERROR if soa => Kind::NoData,
        Rcode::NXDOMAIN if soa => Kind::NameError,
        Rcode::SERVFAIL | Rcode::NOTIMP => Kind::ServerError,
        Rcode::NOERROR if ns => Kind::Delegation,
        Rcode::NOERROR => Kind::NoError,
        _ => Kind::Other,
    }
}

/// Whether an RRSIG record is within its time, in serial number arithmetic (RFC 4034 §3.1.5).
fn is_valid(message: &Message<'_>, record: &Record, unix: Duration) -> bool {
    let rdata = &message.wire()[record.rdata.clone()];
    let moment = |at: usize| {
        let octets = rdata.get(at..at + 4)?;
        octets.try_into().ok().map(u32::from_be_bytes)
    };
    let (Some(expiration), Some(inception)) = (moment(8), moment(12)) else {
        return false;
    };
    let now = unix.as_secs() as u32;
    let not_after = |earlier: u32, later: u32| later.wrapping_sub(earlier) as i32 >= 0;
    not_after(inception, now) && not_after(now, expiration)
}
