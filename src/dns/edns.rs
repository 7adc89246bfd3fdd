//! The OPT pseudo-record (RFC 6891): where it stands in a message, and what it says.
//!
//! Owns its fixed fields and the way through its options. What the options mean is others' business.

use super::layout::split_option;
use super::record::Record;
use std::ops::Range;

/// The OPT pseudo-record of a message (RFC 6891 §6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edns {
    /// Offset of the record's owner name in the message.
    pub at: usize,
    /// The sender's UDP payload size in octets, as sent.
    pub udp_size: u16,
    /// The upper eight bits of the extended RCODE.
    pub extended_rcode: u8,
    /// The EDNS version; only 0 exists.
    pub version: u8,
    /// The flag word: DO is the top bit, the rest is Z.
    pub flags: u16,
    /// Where the options lie in the message.
    pub options: Range<usize>,
}

impl Edns {
    /// The DO bit (RFC 3225).
    pub const DO: u16 = 0x8000;

    /// Reads an OPT record's fixed fields.
    pub(super) fn read(record: &Record) -> Edns {
        let [extended_rcode, version, high, low] = record.ttl.to_be_bytes();
        Edns {
            at: record.at,
            udp_size: record.class.0,
            extended_rcode,
            version,
            flags: u16::from_be_bytes([high, low]),
            options: record.rdata.clone(),
        }
    }

    /// The options of the message that this OPT was read from: each code with its data.
    pub fn each_option<'m>(&self, message: &'m [u8]) -> impl Iterator<Item = (u16, &'m [u8])> {
        let mut rest = message.get(self.options.clone()).unwrap_or_default();
        std::iter::from_fn(move || {
            let (code, option, behind) = split_option(rest)?;
            rest = behind;
            Some((code, option.get(4..)?))
        })
    }
}
