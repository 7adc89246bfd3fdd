//! A response made ready to be kept: without its OPT, all TTLs the same, and their places known.

use super::classify::{OptPlace, Survey};
use crate::dns::{Message, RecordType, Response, Section, Writer};

/// Sets every TTL to `ttl`, takes the OPT out and cuts what stands behind the last record. The
/// places of the TTLs in the new message, or `None` when the OPT could not be taken out.
pub(super) fn flatten(response: &mut Response, found: Survey, ttl: u32) -> Option<Vec<u16>> {
    if found.opt == OptPlace::Inside {
        return rebuild(response, ttl);
    }
    let wire = &mut response.wire;
    let octets = ttl.to_be_bytes();
    for &place in &found.ttl_places {
        let place = usize::from(place);
        wire[place..place + 4].copy_from_slice(&octets);
    }
    match found.opt {
        OptPlace::Last(at) => {
            wire.truncate(at);
            let place = Section::Additional.count_place();
            let count = u16::from_be_bytes([wire[place.start], wire[place.start + 1]]);
            wire[place].copy_from_slice(&count.saturating_sub(1).to_be_bytes());
        }
        _ => wire.truncate(found.end),
    }
    Some(found.ttl_places)
}

/// Writes the message anew without its OPT records: those behind them may point at what moves.
fn rebuild(response: &mut Response, ttl: u32) -> Option<Vec<u16>> {
    let message = response.message().ok()?;
    if message.questions() != 1 {
        return None;
    }
    let mut wire = Vec::with_capacity(response.wire.len());
    let mut writer = Writer::copying(&mut wire, &message);
    for record in message.records() {
        if record.rtype != RecordType::OPT {
            writer.record(record.section, &message, &record, Some(ttl));
        }
    }
    let places = Message::parse(&wire).ok()?.records().map(|record| record.ttl_at as u16).collect();
    response.wire = wire;
    Some(places)
}
