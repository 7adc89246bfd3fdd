//! Entries on their way out of a store and into another one: for what outlives the process.
//!
//! Owns what of an entry is kept and what an entry from outside must be. Knows no format: writing
//! and reading are the caller's.

use super::entry::{Entry, QueryBits, Terms, milliseconds};
use super::store::{Origin, SLICE, Side, Store};
use crate::dns::{Message, Rcode, flags, sizes};
use crate::plugin::Carried;
use std::sync::Arc;
use std::time::Duration;

/// What kind of response an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptAs {
    /// A positive response or a referral.
    Success,
    /// NXDOMAIN or NODATA.
    Denial,
    /// SERVFAIL or NOTIMP.
    Failure,
}

/// One entry outside of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The message: one question, uncompressed and in lower case, every TTL as it was stored, no OPT.
    pub message: Box<[u8]>,
    /// The whole RCODE, 12 bits.
    pub rcode: Rcode,
    /// What it is.
    pub kind: KeptAs,
    /// DO of the queries that it answers.
    pub dnssec_ok: bool,
    /// CD of the queries that it answers.
    pub checking_disabled: bool,
    /// The TTL in seconds from the moment it was stored.
    pub ttl: u32,
    /// How long ago it was stored, in milliseconds.
    pub age: u64,
    /// Hits without a long gap, for `prefetch`.
    pub hits: u32,
    /// How long ago the last of them was, in milliseconds, if there was one.
    pub last_hit: Option<u64>,
}

/// Where a walk over a store goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    shard: usize,
    slot: usize,
}

/// The stores that a snapshot keeps, each with the text that says which it is: its directive, the
/// block's keys, where it listens and what answers below it. A store of another process is the same
/// when this text is.
pub fn stores(carried: &Carried) -> Vec<(String, Arc<Store>)> {
    carried.of_type::<Store>()
}

impl Store {
    /// The next entries that may still be served, at most 128, and the cursor moved on; `None` when
    /// the walk is over. An entry that comes or goes meanwhile may be missed, none is given twice
    /// unless it was stored anew. One shard is locked at a time, for as long as its slice is copied.
    pub fn export(&self, cursor: &mut Cursor, now: Duration) -> Option<Vec<Kept>> {
        let shard = self.locked(cursor.shard)?;
        let (entries, next) = shard.slice(cursor.slot, SLICE);
        let usable = entries.filter(|entry| entry.is_usable(now, self.window()));
        let kept = usable.map(|entry| entry.export(now)).collect();
        *cursor = match next {
            Some(slot) => Cursor { slot, ..*cursor },
            None => Cursor { shard: cursor.shard + 1, slot: 0 },
        };
        Some(kept)
    }

    /// Puts in an entry from outside, within the same bounds as any other. False when it can no
    /// longer be served, or is none: its message does not parse, has not one question in lower case,
    /// is no response, or has an OPT record. Of an entry that is here already the newer one stays.
    pub fn import(&self, kept: &Kept, now: Duration) -> bool {
        let Some(entry) = self.read(kept, now) else { return false };
        if !entry.is_usable(now, self.window()) {
            return false;
        }
        let is_newer = self.of(&entry, |here| here.stored() < entry.stored()).unwrap_or(true);
        if is_newer {
            self.put(entry, now, Origin::Client);
        }
        true
    }

    fn read(&self, kept: &Kept, now: Duration) -> Option<Entry> {
        let message = Message::parse(&kept.message).ok()?;
        let (name, qtype, qclass) = message.question()?;
        let name_end = message.question_end().checked_sub(sizes::TYPE_AND_CLASS)?;
        let is_whole = message.questions() == 1
            && message.flags() & flags::QR != 0
            && message.end() == kept.message.len()
            && kept.message.get(sizes::HEADER..name_end)? == name.as_bytes();
        if !is_whole || message.records().any(|record| record.is_opt()) {
            return None;
        }
        // A message has at most 65535 octets: the place fits.
        let places: Vec<u16> = message.records().map(|record| record.ttl_at as u16).collect();
        let bits =
            QueryBits { dnssec_ok: kept.dnssec_ok, checking_disabled: kept.checking_disabled };
        let terms = Terms {
            key: self.key_of(name.as_bytes(), qtype, qclass, bits),
            side: if kept.kind == KeptAs::Success { Side::Success } else { Side::Denial },
            bits,
            ttl: kept.ttl,
            stored: milliseconds(now).saturating_sub_unsigned(kept.age),
            is_failure: kept.kind == KeptAs::Failure,
            uncompressed_size: message.uncompressed_size(),
            rcode: kept.rcode,
        };
        let mut entry = Entry::new(&kept.message, &places, terms);
        entry.set_popularity(kept.hits, kept.last_hit, now);
        Some(entry)
    }
}

impl Entry {
    fn export(&self, now: Duration) -> Kept {
        let (hits, last_hit) = self.popularity(now);
        Kept {
            message: self.wire().into(),
            rcode: self.rcode(),
            kind: match (self.side(), self.is_failure()) {
                (_, true) => KeptAs::Failure,
                (Side::Denial, false) => KeptAs::Denial,
                (Side::Success, false) => KeptAs::Success,
            },
            dnssec_ok: self.bits().dnssec_ok,
            checking_disabled: self.bits().checking_disabled,
            ttl: self.ttl(),
            age: self.age(now),
            hits,
            last_hit,
        }
    }
}
