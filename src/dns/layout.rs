//! Where the names lie inside RDATA, by type.
//!
//! Owns the table of RFC 1035 §3.3 and RFC 3597 §4: which types hold names, which of them may be
//! compressed when written, and which only have to be understood when read. All other RDATA is
//! octets that nobody looks into.

use super::malformed::Malformed;
use super::name;
use super::words::{Class, RecordType};
use std::ops::Range;

/// A part of RDATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Octets to be copied as they are.
    Octets(Range<usize>),
    /// The offset of a name.
    Name(usize),
}

/// RDATA as octets, character strings, names and a rest, in this order.
#[derive(Debug, Clone, Copy)]
struct Layout {
    octets: usize,
    strings: usize,
    names: usize,
    rest: Rest,
}

/// What follows the names.
#[derive(Debug, Clone, Copy)]
enum Rest {
    Exactly(usize),
    Strings,
    Any,
}

/// True for the types of RFC 1035, whose names may be compressed (RFC 3597 §4).
pub(super) fn may_compress(rtype: RecordType) -> bool {
    matches!(
        rtype,
        RecordType::NS
            | RecordType::MD
            | RecordType::MF
            | RecordType::CNAME
            | RecordType::SOA
            | RecordType::MB
            | RecordType::MG
            | RecordType::MR
            | RecordType::PTR
            | RecordType::MINFO
            | RecordType::MX
    )
}

fn layout(rtype: RecordType, class: Class) -> Option<Layout> {
    use Rest::{Any, Exactly, Strings};
    let (octets, strings, names, rest) = match rtype {
        RecordType::A if class == Class::IN => (4, 0, 0, Exactly(0)),
        RecordType::AAAA if class == Class::IN => (16, 0, 0, Exactly(0)),
        RecordType::NS
        | RecordType::MD
        | RecordType::MF
        | RecordType::CNAME
        | RecordType::MB
        | RecordType::MG
        | RecordType::MR
        | RecordType::PTR
        | RecordType::DNAME
        | RecordType::NSAPPTR => (0, 0, 1, Exactly(0)),
        RecordType::SOA => (0, 0, 2, Exactly(20)),
        RecordType::MINFO | RecordType::RP | RecordType::TALINK => (0, 0, 2, Exactly(0)),
        RecordType::MX | RecordType::AFSDB | RecordType::RT | RecordType::KX | RecordType::LP => {
            (2, 0, 1, Exactly(0))
        }
        RecordType::PX => (2, 0, 2, Exactly(0)),
        RecordType::SRV => (6, 0, 1, Exactly(0)),
        RecordType::NAPTR => (4, 3, 1, Exactly(0)),
        RecordType::SIG | RecordType::RRSIG => (18, 0, 1, Any),
        RecordType::NXT | RecordType::NSEC => (0, 0, 1, Any),
        RecordType::SVCB | RecordType::HTTPS => (2, 0, 1, Any),
        RecordType::TXT | RecordType::SPF => (0, 0, 0, Strings),
        _ => return None,
    };
    Some(Layout { octets, strings, names, rest })
}

/// Gives the parts of a record's RDATA in order. Empty RDATA has none, whatever its type: UPDATE
/// and its kin use it (RFC 2136 §2.4).
pub(super) fn pieces(
    rtype: RecordType,
    class: Class,
    message: &[u8],
    rdata: Range<usize>,
    mut each: impl FnMut(Piece) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    if rdata.is_empty() {
        return Ok(());
    }
    if rtype == RecordType::OPT {
        check_options(message.get(rdata.clone()).ok_or(Malformed::Cut)?)?;
        return each(Piece::Octets(rdata));
    }
    let Some(layout) = layout(rtype, class) else {
        return each(Piece::Octets(rdata));
    };
    let mut at = rdata.start + layout.octets;
    for _ in 0..layout.strings {
        at += 1 + usize::from(*message.get(at).ok_or(Malformed::RdataCut)?);
    }
    if at > rdata.end {
        return Err(Malformed::RdataCut);
    }
    if at > rdata.start {
        each(Piece::Octets(rdata.start..at))?;
    }
    for _ in 0..layout.names {
        let (_, end) = name::measure(message, at).map_err(|malformed| match malformed {
            Malformed::Cut => Malformed::Rdata,
            other => other,
        })?;
        if end > rdata.end {
            return Err(Malformed::Rdata);
        }
        each(Piece::Name(at))?;
        at = end;
    }
    match layout.rest {
        Rest::Exactly(octets) if at + octets > rdata.end => Err(Malformed::RdataCut),
        Rest::Exactly(octets) if at + octets < rdata.end => Err(Malformed::Rdata),
        Rest::Strings if !is_strings(message.get(at..rdata.end).unwrap_or_default()) => {
            Err(Malformed::RdataCut)
        }
        _ if at == rdata.end => Ok(()),
        _ => each(Piece::Octets(at..rdata.end)),
    }
}

/// Whether character strings fill these octets exactly (RFC 1035 §3.3).
fn is_strings(octets: &[u8]) -> bool {
    let mut rest = octets;
    while let Some((length, behind)) = rest.split_first() {
        match behind.get(usize::from(*length)..) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

/// Checks that options fill OPT RDATA exactly (RFC 6891 §6.1.2).
fn check_options(rdata: &[u8]) -> Result<(), Malformed> {
    let mut rest = rdata;
    while !rest.is_empty() {
        let (_, _, behind) = split_option(rest).ok_or(Malformed::RdataCut)?;
        rest = behind;
    }
    Ok(())
}

/// The options with this one in the place of the first of its code, or behind all; others of its
/// code go. `None` when its data is longer than an option can be.
pub(super) fn with_option(options: &[u8], code: u16, data: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(data.len()).ok()?;
    let mut given = Vec::with_capacity(4 + data.len());
    given.extend_from_slice(&code.to_be_bytes());
    given.extend_from_slice(&length.to_be_bytes());
    given.extend_from_slice(data);
    let mut all = Vec::with_capacity(options.len() + given.len());
    let mut rest = options;
    while let Some((known, option, behind)) = split_option(rest) {
        if known == code {
            all.append(&mut given);
        } else {
            all.extend_from_slice(option);
        }
        rest = behind;
    }
    all.append(&mut given);
    Some(all)
}

/// The first option's code, its octets with code and length, and what is behind it.
pub(super) fn split_option(options: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (head, _) = options.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let (option, behind) = options.split_at_checked(4 + length)?;
    Some((u16::from_be_bytes([head[0], head[1]]), option, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Message;

    /// What a message with one record of this type and RDATA, with more octets behind it, is.
    fn read(rtype: RecordType, rdata: &[u8]) -> Result<(), Malformed> {
        read_of(Class::IN, rtype, rdata)
    }

    fn read_of(class: Class, rtype: RecordType, rdata: &[u8]) -> Result<(), Malformed> {
        let mut wire = b"\0\x01\x81\0\0\0\0\x01\0\0\0\0\0".to_vec();
        wire.extend(rtype.0.to_be_bytes());
        wire.extend(class.0.to_be_bytes());
        wire.extend(b"\0\0\0\x01");
        wire.extend((rdata.len() as u16).to_be_bytes());
        wire.extend(rdata);
        wire.extend([0; 40]);
        Message::parse(&wire).map(drop)
    }

    #[test]
    fn what_is_in_rdata_ends_with_it() {
        // One octet more of the name, or of the text, stands behind the RDATA.
        assert_eq!(read(RecordType::NS, b"\x01a\0"), Ok(()));
        assert_eq!(read(RecordType::NS, b"\x01a"), Err(Malformed::Rdata));
        assert_eq!(read(RecordType::NSEC, b"\x01a\0"), Ok(()));
        assert_eq!(read(RecordType::NSEC, b"\x01a"), Err(Malformed::Rdata));
        assert_eq!(read(RecordType::TXT, b"\x01a\x02bc"), Ok(()));
        assert_eq!(read(RecordType::TXT, b"\x01a\x03bc"), Err(Malformed::RdataCut));
        assert_eq!(read(RecordType::A, b"\0\0\0\0\0"), Err(Malformed::Rdata));
        assert_eq!(read(RecordType::A, b"\0\0\0"), Err(Malformed::RdataCut));
    }

    #[test]
    fn rdata_may_be_empty_and_addresses_of_other_classes_are_of_any_length() {
        for rtype in [RecordType::A, RecordType::AAAA, RecordType::NS, RecordType::SOA] {
            assert_eq!(read(rtype, b""), Ok(()), "RFC 2136 §2.4: {rtype}");
        }
        for rtype in [RecordType::A, RecordType::AAAA] {
            assert_eq!(read_of(Class::CH, rtype, b"\x01a\0\x12\x34"), Ok(()), "{rtype}");
        }
    }
}
