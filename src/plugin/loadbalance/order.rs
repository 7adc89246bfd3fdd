//! The order of a message's records: found over small pieces, then written back.
//!
//! Owns the grouping by type and both ways to write: records that are alike change places in the
//! buffer, anything else has the message rebuilt, since compressed names point at what moves.
//! The first way, which is an RRset of addresses, allocates nothing.

use crate::dns::{Message, Name, Record, RecordType, Section, Writer};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most records of a message that is arranged without allocation.
const FEW: usize = 48;

/// The greatest size in octets of a record that changes places: AAAA with a compressed owner.
const ALIKE: usize = 28;

/// What a record is to the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// CNAME.
    Alias,
    /// A and AAAA.
    Address,
    /// MX.
    Mail,
    /// All else.
    Other,
}

/// A record: where it lies and where it stood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) group: Group,
    /// Its index among all records of the message.
    origin: usize,
    at: usize,
    rdata: usize,
    end: usize,
    rtype: RecordType,
    section: Section,
    /// Scratch of [`group`]: its place before.
    place: usize,
}

impl Piece {
    const NONE: Piece = Piece {
        group: Group::Other,
        origin: 0,
        at: 0,
        rdata: 0,
        end: 0,
        rtype: RecordType(0),
        section: Section::Answer,
        place: 0,
    };

    fn new(origin: usize, record: &Record) -> Piece {
        let group = match record.rtype {
            RecordType::CNAME => Group::Alias,
            RecordType::A | RecordType::AAAA => Group::Address,
            RecordType::MX => Group::Mail,
            _ => Group::Other,
        };
        Piece {
            group,
            origin,
            at: record.at,
            rdata: record.rdata.start,
            end: record.rdata.end,
            rtype: record.rtype,
            section: record.section,
            place: 0,
        }
    }

    /// The owner name.
    pub(super) fn owner(&self, message: &Message<'_>) -> Option<Name> {
        Name::parse(message.wire(), self.at).ok().map(|(name, _)| name)
    }

    /// The address of an A or AAAA record.
    pub(super) fn address(&self, wire: &[u8]) -> Option<IpAddr> {
        let rdata = wire.get(self.rdata..self.end)?;
        match self.rtype {
            RecordType::A => <[u8; 4]>::try_from(rdata).ok().map(|a| Ipv4Addr::from(a).into()),
            RecordType::AAAA => <[u8; 16]>::try_from(rdata).ok().map(|a| Ipv6Addr::from(a).into()),
            _ => None,
        }
    }
}

/// Brings the groups into `order`; within a group nothing changes.
pub(super) fn group(pieces: &mut [Piece], order: &[Group; 4]) {
    for (place, piece) in pieces.iter_mut().enumerate() {
        piece.place = place;
    }
    pieces.sort_unstable_by_key(|piece| {
        (order.iter().position(|group| *group == piece.group), piece.place)
    });
}

/// The pieces of one group, once [`group`]ed.
pub(super) fn of_group(pieces: &mut [Piece], group: Group) -> &mut [Piece] {
    let start = pieces.iter().position(|piece| piece.group == group).unwrap_or(pieces.len());
    let length = pieces[start..].iter().take_while(|piece| piece.group == group).count();
    &mut pieces[start..start + length]
}

/// Sorts the addresses by `rank`; equals keep their order.
pub(super) fn sort_addresses(pieces: &mut [Piece], rank: impl Fn(&Piece) -> usize) {
    let addresses = of_group(pieces, Group::Address);
    for (place, piece) in addresses.iter_mut().enumerate() {
        piece.place = place;
    }
    addresses.sort_unstable_by_key(|piece| (rank(piece), piece.place));
}

/// The new order of a message's records.
#[expect(clippy::large_enum_variant, reason = "few records shall not allocate")]
pub(super) enum Arranged {
    /// As it was, or not to be touched.
    Same,
    /// Few records: the pieces in their new order, and how many.
    Few([Piece; FEW], usize),
    /// Many records.
    Many(Vec<Piece>),
}

impl Arranged {
    /// Has `arrange` order the records of each section.
    pub(super) fn new(
        message: &Message<'_>,
        mut arrange: impl FnMut(Section, &mut [Piece]),
    ) -> Arranged {
        let mut few = [Piece::NONE; FEW];
        let mut many = Vec::new();
        let mut count = 0;
        for (origin, record) in message.records().enumerate() {
            let piece = Piece::new(origin, &record);
            match few.get_mut(origin) {
                Some(place) if many.is_empty() => *place = piece,
                _ => {
                    if many.is_empty() {
                        many.extend_from_slice(&few);
                    }
                    many.push(piece);
                }
            }
            count = origin + 1;
        }
        let pieces = if many.is_empty() { &mut few[..count] } else { &mut many[..] };
        for section in pieces.chunk_by_mut(|one, next| one.section == next.section) {
            arrange(section[0].section, section);
        }
        if pieces.iter().enumerate().all(|(place, piece)| place == piece.origin) {
            Arranged::Same
        } else if many.is_empty() {
            Arranged::Few(few, count)
        } else {
            Arranged::Many(many)
        }
    }

    /// Writes the message in the new order.
    pub(super) fn write(&self, wire: &mut Vec<u8>) {
        match self {
            Arranged::Same => {}
            Arranged::Few(pieces, count) => {
                let pieces = &pieces[..*count];
                if !exchange(pieces, wire) {
                    rebuild(pieces, wire);
                }
            }
            Arranged::Many(pieces) => rebuild(pieces, wire),
        }
    }
}

/// Lets records change places, if all that move are addresses of the same type whose owner is the
/// same compression pointer: then no name changes its meaning. False when they are not alike.
fn exchange(pieces: &[Piece], wire: &mut [u8]) -> bool {
    let mut saved = [0u8; FEW * ALIKE];
    let mut places = [0usize; FEW];
    let mut alike: Option<(RecordType, usize, [u8; 2])> = None;
    for (place, piece) in pieces.iter().enumerate() {
        if let Some(known) = places.get_mut(piece.origin) {
            *known = piece.at;
        }
        if place == piece.origin {
            continue;
        }
        let Some(octets) = wire.get(piece.at..piece.end) else { return false };
        let Some(&owner) = octets.first_chunk::<2>() else { return false };
        let (shape, length) = ((piece.rtype, octets.len(), owner), octets.len());
        if piece.group != Group::Address
            || owner[0] & 0xc0 != 0xc0
            || length > ALIKE
            || *alike.get_or_insert(shape) != shape
        {
            return false;
        }
        saved[place * ALIKE..place * ALIKE + length].copy_from_slice(octets);
    }
    let Some((_, length, _)) = alike else { return true };
    for (place, piece) in pieces.iter().enumerate() {
        if place != piece.origin
            && let Some(octets) = wire.get_mut(places[place]..places[place] + length)
        {
            octets.copy_from_slice(&saved[place * ALIKE..place * ALIKE + length]);
        }
    }
    true
}

/// Writes the whole message anew.
fn rebuild(pieces: &[Piece], wire: &mut Vec<u8>) {
    let before = wire.clone();
    let Ok(message) = Message::parse(&before) else { return };
    let records: Vec<Record> = message.records().collect();
    let mut writer = Writer::copying(wire, &message);
    for piece in pieces {
        if let Some(record) = records.get(piece.origin) {
            writer.record(piece.section, &message, record, None);
        }
    }
}
