//! One entry as octets: a record.

use super::Refusal;
use crate::dns::{Rcode, sizes};
use crate::plugin::cache::export::{Kept, KeptAs};
use std::time::Duration;

/// Octets of a record behind its length and before its message.
pub(super) const FIXED_OCTETS: usize = 27;

/// The least and the most octets of a message.
const MESSAGE_OCTETS: std::ops::RangeInclusive<usize> = sizes::HEADER..=sizes::MESSAGE_MOST;

/// How far in the future an entry may have been stored: the wall clock is set a little back now and
/// then. After a larger step nobody knows how old entries are: they are left out.
const CLOCK_STEP_MOST: u64 = 1000;

/// Appends one record. `unix` is the wall clock at the moment of the export: ages are kept as
/// moments, since time passes until they are read.
pub fn encode(kept: &Kept, unix: Duration, octets: &mut Vec<u8>) {
    let now = milliseconds(unix);
    let kind = match kept.kind {
        KeptAs::Success => 0,
        KeptAs::Denial => 1,
        KeptAs::Failure => 2,
    };
    let flags = kind | u8::from(kept.dnssec_ok) << 2 | u8::from(kept.checking_disabled) << 3;
    let last_hit = kept.last_hit.map_or(0, |ago| now.saturating_sub(ago).max(1));
    // A message has at most 65535 octets.
    octets.extend(((FIXED_OCTETS + kept.message.len()) as u32).to_be_bytes());
    octets.push(flags);
    octets.extend(kept.rcode.0.to_be_bytes());
    octets.extend(kept.ttl.to_be_bytes());
    octets.extend(now.saturating_sub(kept.age).to_be_bytes());
    octets.extend(kept.hits.to_be_bytes());
    octets.extend(last_hit.to_be_bytes());
    octets.extend_from_slice(&kept.message);
}

/// Gives `each` the entries of the records in `octets`, as they are at the wall clock's `unix`; those
/// that lie in the future are left out. The error is [`Refusal::Torn`]: what stood before has been
/// given.
pub fn decode(octets: &[u8], unix: Duration, mut each: impl FnMut(Kept)) -> Result<(), Refusal> {
    let mut rest = octets;
    while !rest.is_empty() {
        match next(&mut rest, milliseconds(unix)).ok_or(Refusal::Torn)? {
            Record::Kept(kept) => each(kept),
            Record::OfTheFuture => {}
        }
    }
    Ok(())
}

/// What a record holds.
enum Record {
    Kept(Kept),
    /// An entry that was stored later than now, be it that the clock was set back.
    OfTheFuture,
}

/// The next record; `None` when it is none.
fn next(rest: &mut &[u8], now: u64) -> Option<Record> {
    let length = u32::from_be_bytes(take(rest)?) as usize;
    let (mut record, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    let record = &mut record;
    let [flags] = take(record)?;
    let kind = match flags & 3 {
        0 => KeptAs::Success,
        1 => KeptAs::Denial,
        2 => KeptAs::Failure,
        _ => return None,
    };
    let rcode = Rcode(u16::from_be_bytes(take(record)?));
    let ttl = u32::from_be_bytes(take(record)?);
    let stored = u64::from_be_bytes(take(record)?);
    let hits = u32::from_be_bytes(take(record)?);
    let last_hit = u64::from_be_bytes(take(record)?);
    if flags > 15 || rcode.0 > 4095 || !MESSAGE_OCTETS.contains(&record.len()) {
        return None;
    }
    if stored > now.saturating_add(CLOCK_STEP_MOST) {
        return Some(Record::OfTheFuture);
    }
    Some(Record::Kept(Kept {
        message: (*record).into(),
        rcode,
        kind,
        dnssec_ok: flags & 4 != 0,
        checking_disabled: flags & 8 != 0,
        ttl,
        age: now.saturating_sub(stored),
        hits,
        last_hit: (last_hit != 0).then(|| now.saturating_sub(last_hit)),
    }))
}

/// The next octets; `None` when there are fewer.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

fn milliseconds(unix: Duration) -> u64 {
    u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
}
