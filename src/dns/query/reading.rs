//! The first look at a received message: its question, its OPT, and whether it is in normal form already.
//!
//! Allocates nothing, and changes nothing.

use crate::dns::edns::Edns;
use crate::dns::malformed::Malformed;
use crate::dns::message::Message;
use crate::dns::name::Spelled;
use crate::dns::record::Section;
use crate::dns::sizes;
use crate::dns::words::{Class, RecordType, flags};

/// The question of a received message.
pub(super) struct Asked<'b> {
    pub(super) name: Spelled<'b>,
    pub(super) qtype: RecordType,
    pub(super) qclass: Class,
    /// Just behind it in the received bytes.
    pub(super) end: usize,
    /// It is complete and holds no pointer: the received octets are its normal form.
    pub(super) is_whole: bool,
}

impl<'b> Asked<'b> {
    /// Reads the question behind the header. A message may end behind QNAME or QTYPE: what is missing
    /// counts as 0.
    #[inline]
    pub(super) fn read(bytes: &'b [u8]) -> Result<Asked<'b>, Malformed> {
        let (name, name_end) = Spelled::parse(bytes, sizes::HEADER)?;
        let behind = &bytes[name_end..];
        let (qtype, qclass, octets) = match *behind {
            [] => (0, 0, 0),
            [high, low] => (u16::from_be_bytes([high, low]), 0, 2),
            [a, b, c, d, ..] => {
                (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), sizes::TYPE_AND_CLASS)
            }
            _ => return Err(Malformed::Cut),
        };
        // A pointer is two octets, what it stands for one or at least three.
        let is_whole =
            octets == sizes::TYPE_AND_CLASS && name_end - sizes::HEADER == name.as_bytes().len();
        let (qtype, qclass) = (RecordType(qtype), Class(qclass));
        Ok(Asked { name, qtype, qclass, end: name_end + octets, is_whole })
    }
}

/// What stands behind the question of a received message.
pub(super) struct Reading {
    pub(super) edns: Option<Edns>,
    pub(super) is_normal: bool,
}

impl Reading {
    /// Reads on behind the question. The error is that of a record.
    pub(super) fn of(bytes: &[u8], asked: &Asked<'_>) -> Result<Reading, Malformed> {
        let promised = [bytes[7], bytes[9], bytes[11]];
        let mut is_normal = asked.is_whole
            && promised[0] == 0
            && promised[1] == 0
            && u16::from(bytes[3]) & flags::RCODE == 0;
        if is_normal && promised[2] == 0 && asked.end == bytes.len() {
            return Ok(Reading { edns: None, is_normal });
        }
        let message = Message::parse_behind(bytes, asked.end)?;
        let mut edns = None;
        for record in message.records() {
            if record.is_opt() {
                is_normal &= edns.is_none() && bytes[record.at] == 0;
                edns = Some(Edns::read(&record));
            } else {
                is_normal = false;
            }
        }
        is_normal &= message.end() == bytes.len()
            && message.count(Section::Additional) == u16::from(promised[2]);
        Ok(Reading { edns, is_normal })
    }
}
