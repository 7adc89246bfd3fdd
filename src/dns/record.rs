//! One record: where it stands in its message, and its fixed fields.

use super::malformed::Malformed;
use super::words::{Class, RecordType};
use super::{layout, name, sizes};
use std::ops::Range;

/// The sections that hold records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Answer.
    Answer,
    /// Authority.
    Authority,
    /// Additional.
    Additional,
}

/// A record's place in its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The section it stands in.
    pub section: Section,
    /// Offset of the owner name.
    pub at: usize,
    /// Offset of the TTL field.
    pub ttl_at: usize,
    /// TYPE.
    pub rtype: RecordType,
    /// CLASS (for OPT: the UDP size).
    pub class: Class,
    /// TTL in seconds as on the wire (for OPT: the extended flags).
    pub ttl: u32,
    /// The RDATA.
    pub rdata: Range<usize>,
}

impl Section {
    /// All of them, in a message's order.
    pub(super) const ALL: [Section; 3] = [Section::Answer, Section::Authority, Section::Additional];

    /// Where the header counts its records (RFC 1035 §4.1.1).
    pub const fn count_place(self) -> Range<usize> {
        let start = 6 + 2 * self as usize;
        start..start + 2
    }
}

impl Record {
    /// Reads and checks the record at `at`, RDATA included.
    pub(super) fn check(wire: &[u8], at: usize, section: Section) -> Result<Record, Malformed> {
        let (_, behind) = name::measure(wire, at)?;
        let record = Record::read(wire, at, behind, section).ok_or(Malformed::Cut)?;
        layout::pieces(record.rtype, record.class, wire, record.rdata.clone(), |_| Ok(()))?;
        Ok(record)
    }

    /// Whether these octets, with names in full, can be the RDATA of such a record.
    pub fn can_have(rtype: RecordType, class: Class, rdata: &[u8]) -> bool {
        layout::pieces(rtype, class, rdata, 0..rdata.len(), |_| Ok(())).is_ok()
    }

    /// Reads the fixed fields of a record whose owner name ends before `behind`.
    pub(super) fn read(wire: &[u8], at: usize, behind: usize, section: Section) -> Option<Record> {
        let fixed = wire.get(behind..)?.first_chunk::<{ sizes::RECORD_FIELDS }>()?;
        let start = behind + sizes::RECORD_FIELDS;
        let end = start + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        (end <= wire.len()).then_some(Record {
            section,
            at,
            ttl_at: behind + 4,
            rtype: RecordType(u16::from_be_bytes([fixed[0], fixed[1]])),
            class: Class(u16::from_be_bytes([fixed[2], fixed[3]])),
            ttl: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            rdata: start..end,
        })
    }

    /// True for an OPT pseudo-record where it may stand: in the additional section.
    pub fn is_opt(&self) -> bool {
        self.rtype == RecordType::OPT && self.section == Section::Additional
    }
}
