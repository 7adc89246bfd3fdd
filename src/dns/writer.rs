//! Write message bytes: header, question, records; names compressed, sizes bounded.
//!
//! Owns name compression. Never allocates but to grow the buffer it writes to, and never writes
//! more than its limit.

use super::layout::{self, Piece};
use super::message::{Message, Record, Section};
use super::name::Spelled;
use super::words::{Class, RecordType, flags};

/// The greatest size of a message: what the length prefix of TCP can say (RFC 1035 §4.2.2).
pub(super) const MAX_MESSAGE: usize = 65535;

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
        Writer { out, limit: MAX_MESSAGE, full: false, suffixes: Some(Suffixes::default()) }
    }

    /// Starts a message with the id, flags and first question of another: no message with more
    /// questions comes to where messages are rebuilt.
    pub(super) fn copying(out: &'b mut Vec<u8>, from: &Message<'_>) -> Writer<'b> {
        let wire = from.wire();
        let mut writer = Writer::new(out, u16::from_be_bytes([wire[0], wire[1]]), from.flags());
        if from.questions() > 0
            && let Some(question) = wire.get(12..from.question_end())
            && let Ok((name, end)) = Spelled::parse(wire, 12)
        {
            writer.name(name.as_bytes());
            writer.out.extend_from_slice(question.get(end - 12..end - 8).unwrap_or_default());
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
        self.limit = octets.min(MAX_MESSAGE);
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
        let length = options.len().min(MAX_MESSAGE);
        self.out.extend_from_slice(&(length as u16).to_be_bytes());
        self.out.extend_from_slice(&options[..length]);
        self.add_to_count(6 + 2 * Section::Additional as usize);
    }

    /// The length so far.
    pub fn size(&self) -> usize {
        self.out.len()
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
                        self.out.extend_from_slice(name.as_bytes());
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
        self.add_to_count(6 + 2 * section as usize);
    }

    fn name(&mut self, name: &[u8]) {
        match &mut self.suffixes {
            Some(suffixes) => suffixes.write(self.out, name),
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

/// The names already in a message, by the hash of each suffix: bounded in size and in work, so a
/// message made to defeat it is merely compressed less.
#[derive(Debug)]
struct Suffixes {
    /// A part of the hash, and the offset; offset 0 is an empty slot.
    slots: [(u16, u16); Suffixes::SLOTS],
}

impl Default for Suffixes {
    fn default() -> Suffixes {
        Suffixes { slots: [(0, 0); Suffixes::SLOTS] }
    }
}

impl Suffixes {
    const SLOTS: usize = 256;
    /// How many slots are looked at for one suffix.
    const PROBES: usize = 8;
    /// Offsets from here on do not fit into a pointer.
    const REACH: usize = 0x4000;
    /// The most labels a name has, root not counted.
    const LABELS: usize = 127;

    /// Appends `name` (valid wire form), its longest known suffix as a pointer. Case decides: a
    /// name never changes its spelling by being compressed.
    fn write(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        let mut starts = [0u8; Suffixes::LABELS];
        let mut labels = 0;
        let mut place = 0;
        while name[place] != 0 && labels < Suffixes::LABELS {
            starts[labels] = place as u8;
            labels += 1;
            place += 1 + usize::from(name[place]);
        }
        // FNV-1a, from the root leftwards so that a suffix's hash is on the way to its name's.
        let mut hashes = [0u32; Suffixes::LABELS];
        let mut hash = 0x811c_9dc5u32;
        let mut end = place;
        for label in (0..labels).rev() {
            let start = usize::from(starts[label]);
            for &byte in &name[start..end] {
                hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
            hashes[label] = hash;
            end = start;
        }
        let base = out.len();
        let mut known = labels;
        let mut pointer = None;
        for label in 0..labels {
            let suffix = &name[usize::from(starts[label])..];
            if let Some(offset) = self.find(hashes[label], out, suffix) {
                known = label;
                pointer = Some(offset);
                break;
            }
        }
        match pointer {
            Some(offset) => {
                out.extend_from_slice(&name[..usize::from(starts[known])]);
                out.extend_from_slice(&(0xc000 | offset).to_be_bytes());
            }
            None => out.extend_from_slice(name),
        }
        for label in 0..known {
            self.remember(hashes[label], base + usize::from(starts[label]));
        }
    }

    fn places(hash: u32) -> impl Iterator<Item = usize> {
        (0..Suffixes::PROBES).map(move |step| (hash as usize + step) % Suffixes::SLOTS)
    }

    fn find(&self, hash: u32, out: &[u8], suffix: &[u8]) -> Option<u16> {
        for place in Suffixes::places(hash) {
            let (tag, offset) = self.slots[place];
            if offset == 0 {
                return None;
            }
            if tag == (hash >> 16) as u16 && stands_at(out, usize::from(offset), suffix) {
                return Some(offset);
            }
        }
        None
    }

    fn remember(&mut self, hash: u32, offset: usize) {
        if offset >= Suffixes::REACH {
            return;
        }
        for place in Suffixes::places(hash) {
            if self.slots[place].1 == 0 {
                self.slots[place] = ((hash >> 16) as u16, offset as u16);
                return;
            }
        }
    }
}

/// True when the name at `offset` of the message that we wrote is `name`, spelling included.
fn stands_at(out: &[u8], offset: usize, name: &[u8]) -> bool {
    let (mut place, mut rest) = (offset, name);
    while let Some(&head) = out.get(place) {
        if head & 0xc0 == 0xc0 {
            let Some(&low) = out.get(place + 1) else { return false };
            place = (usize::from(head & 0x3f) << 8) | usize::from(low);
            continue;
        }
        let stop = place + 1 + usize::from(head);
        let Some(label) = out.get(place..stop) else { return false };
        let Some(behind) = rest.strip_prefix(label) else { return false };
        if head == 0 {
            return behind.is_empty();
        }
        (place, rest) = (stop, behind);
    }
    false
}
