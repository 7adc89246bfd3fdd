//! Write message bytes: header, question, records; names compressed, sizes bounded.
//!
//! Never allocates but to grow the buffer it writes to, and never writes more than its limit.

use super::layout::{self, Piece};
use super::message::Message;
use super::name::Spelled;
use super::record::{Record, Section};
use super::sizes;
use super::suffixes::Suffixes;
use super::words::{Class, RecordType, flags};

/// Writes a message into a buffer, compressing owner names and the RDATA names of the types of
/// RFC 1035. A record that does not fit within the limit is left out, with all that come after it,
/// and TC is set.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    limit: usize,
    full: bool,
    suffixes: Option<Suffixes>,
}

impl<'b> Writer<'b> {
    /// Starts a message: clears `out`, writes the 12 octets of the header with all counts 0.
    pub fn new(out: &'b mut Vec<u8>, id: u16, flags: u16) -> Writer<'b> {
        out.clear();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        Writer { out, limit: sizes::MESSAGE_MOST, full: false, suffixes: Some(Suffixes::default()) }
    }

    /// Starts a message with the id, flags and first question of another: no message with more
    /// questions comes to where messages are rebuilt.
    pub fn copying(out: &'b mut Vec<u8>, from: &Message<'_>) -> Writer<'b> {
        let wire = from.wire();
        let mut writer = Writer::new(out, from.id(), from.flags());
        if from.questions() > 0
            && let Ok((name, end)) = Spelled::parse(wire, sizes::HEADER)
        {
            let rest = wire.get(end..end + sizes::TYPE_AND_CLASS).unwrap_or_default();
            writer.name(name.as_bytes());
            writer.out.extend_from_slice(rest);
            writer.add_to_count(4);
        }
        writer
    }

    /// Writes all names in full.
    pub fn uncompressed(mut self) -> Writer<'b> {
        self.suffixes = None;
        self
    }

    /// Sets the greatest size of the message in octets; 65535 unless told, and at most.
    pub fn limited_to(mut self, octets: usize) -> Writer<'b> {
        self.limit = octets.min(sizes::MESSAGE_MOST);
        self
    }

    /// Appends a question in wire form (QNAME uncompressed, QTYPE, QCLASS).
    pub fn question(&mut self, question: &[u8]) {
        let Ok((name, end)) = Spelled::parse(question, 0) else {
            debug_assert!(false, "a question begins with a name");
            return;
        };
        self.name(name.as_bytes());
        self.out.extend_from_slice(question.get(end..).unwrap_or_default());
        self.add_to_count(4);
    }

    /// Appends a copy of another message's record to `section`, with its TTL replaced if given.
    /// Sections must be written in order. The counts are kept.
    pub fn record(
        &mut self,
        section: Section,
        from: &Message<'_>,
        record: &Record,
        ttl: Option<u32>,
    ) {
        let Some(owner) = from.spelled_owner(record) else { return };
        let parts = Parts {
            owner: owner.as_bytes(),
            rtype: record.rtype,
            class: record.class,
            ttl: ttl.unwrap_or(record.ttl),
        };
        self.append(section, &parts, from.wire(), record.rdata.clone());
    }

    /// Appends a copy of another message's record under another owner name (in wire form) and
    /// with another TTL.
    pub fn renamed_record(
        &mut self,
        section: Section,
        from: &Message<'_>,
        record: &Record,
        owner: &[u8],
        ttl: u32,
    ) {
        let Ok((owner, _)) = Spelled::parse(owner, 0) else {
            debug_assert!(false, "an owner is a name");
            return;
        };
        let parts =
            Parts { owner: owner.as_bytes(), rtype: record.rtype, class: record.class, ttl };
        self.append(section, &parts, from.wire(), record.rdata.clone());
    }

    /// Appends a record given by its parts; `owner` is a name in wire form, `rdata` holds no
    /// compressed names.
    pub fn raw_record(
        &mut self,
        section: Section,
        owner: &[u8],
        rtype: RecordType,
        class: Class,
        ttl: u32,
        rdata: &[u8],
    ) {
        let Ok((owner, _)) = Spelled::parse(owner, 0) else {
            debug_assert!(false, "an owner is a name");
            return;
        };
        let parts = Parts { owner: owner.as_bytes(), rtype, class, ttl };
        self.append(section, &parts, rdata, 0..rdata.len());
    }

    /// Appends an OPT record whatever the limit says: room for it was kept.
    pub(super) fn opt(&mut self, udp_size: Class, ttl: u32, options: &[u8]) {
        self.out.push(0);
        self.out.extend_from_slice(&RecordType::OPT.0.to_be_bytes());
        self.out.extend_from_slice(&udp_size.0.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        let length = options.len().min(sizes::MESSAGE_MOST);
        self.out.extend_from_slice(&(length as u16).to_be_bytes());
        self.out.extend_from_slice(&options[..length]);
        self.add_to_count(Section::Additional.count_place().start);
    }

    /// True when a record was left out because of the limit.
    pub fn is_cut(&self) -> bool {
        self.full
    }

    fn append(
        &mut self,
        section: Section,
        parts: &Parts<'_>,
        source: &[u8],
        rdata: std::ops::Range<usize>,
    ) {
        if self.full {
            return;
        }
        let start = self.out.len();
        self.name(parts.owner);
        self.out.extend_from_slice(&parts.rtype.0.to_be_bytes());
        self.out.extend_from_slice(&parts.class.0.to_be_bytes());
        self.out.extend_from_slice(&parts.ttl.to_be_bytes());
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0; 2]);
        let written = layout::pieces(parts.rtype, parts.class, source, rdata, |piece| {
            match piece {
                Piece::Octets(octets) => {
                    self.out.extend_from_slice(source.get(octets).unwrap_or_default());
                }
                Piece::Name(at) => {
                    let (name, _) = Spelled::parse(source, at)?;
                    if layout::may_compress(parts.rtype) {
                        self.name(name.as_bytes());
                    } else {
                        self.name_in_full(name.as_bytes());
                    }
                }
            }
            Ok(())
        });
        if written.is_err() || self.out.len() > self.limit {
            self.out.truncate(start);
            self.full = true;
            self.out[2] |= (flags::TC >> 8) as u8;
            return;
        }
        let length = (self.out.len() - length_at - 2) as u16;
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        self.add_to_count(section.count_place().start);
    }

    fn name(&mut self, name: &[u8]) {
        match &mut self.suffixes {
            Some(suffixes) => suffixes.write(self.out, name),
            None => self.out.extend_from_slice(name),
        }
    }

    fn name_in_full(&mut self, name: &[u8]) {
        match &mut self.suffixes {
            Some(suffixes) => suffixes.write_in_full(self.out, name),
            None => self.out.extend_from_slice(name),
        }
    }

    /// The limit keeps every count far below its greatest value.
    fn add_to_count(&mut self, at: usize) {
        let count = u16::from_be_bytes([self.out[at], self.out[at + 1]]).saturating_add(1);
        self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
}

/// A record but for its RDATA.
struct Parts<'p> {
    owner: &'p [u8],
    rtype: RecordType,
    class: Class,
    ttl: u32,
}

#[cfg(test)]
mod tests;
