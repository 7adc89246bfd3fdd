//! A query as it came in: accepted or rejected by the table of spec/coredns.md §5.2, its question
//! read in place.
//!
//! Owns the acceptance of messages and the normal form in which queries go upstream. A well-formed
//! query borrows the received bytes; one that a plugin changes, or that waits, owns its own.

use super::layout::{split_option, with_option};
use super::message::{Malformed, Message, Record, Section};
use super::name::{Name, Spelled};
use super::words::{Class, Opcode, Rcode, RecordType, flags};
use super::writer::Writer;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

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

/// What an arriving message turned out to be.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // A box would be an allocation for every query.
pub enum Received<'a> {
    /// A query for the chain.
    Query(Query<'a>),
    /// Answered at once, before any plugin.
    Reject(Reject),
    /// No reply: a response (QR=1), or fewer than 12 octets.
    Ignore,
}

/// The reply to a message that no plugin sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// FORMERR, NOTIMP or SERVFAIL.
    pub rcode: Rcode,
    /// The reply's flag word, RCODE excluded.
    pub flags: u16,
    /// The question to echo, as a range of the received bytes.
    pub question: Option<Range<usize>>,
}

/// An accepted query: header, one question, its records, in normal form (counts match the records
/// that are there, nothing behind the last one).
#[derive(Debug, Clone)]
pub struct Query<'a> {
    wire: Cow<'a, [u8]>,
    name: Name,
    qtype: RecordType,
    qclass: Class,
    question_end: usize,
    edns: Option<Edns>,
    received_size: usize,
    reflected: Option<Arc<[u16]>>,
}

/// A query that nobody looks at for now, as small as it can be: thousands may wait. Its name, which
/// alone has room for 255 octets, is read again when it is looked at.
#[derive(Debug, Clone)]
pub struct KeptQuery {
    wire: Arc<[u8]>,
    qtype: RecordType,
    qclass: Class,
    question_end: u32,
    received_size: u32,
    edns: Option<KeptEdns>,
    reflected: Option<Arc<[u16]>>,
}

/// [`Edns`] with offsets no wider than a message is long.
#[derive(Debug, Clone, Copy)]
struct KeptEdns {
    at: u32,
    options: (u32, u32),
    udp_size: u16,
    extended_rcode: u8,
    version: u8,
    flags: u16,
}

impl KeptQuery {
    /// The whole message, shared with whoever sends it.
    pub fn wire(&self) -> &Arc<[u8]> {
        &self.wire
    }

    /// Where the question section ends, in octets from the beginning of the message.
    pub fn question_end(&self) -> usize {
        self.question_end as usize
    }

    /// The question section: QNAME, QTYPE, QCLASS in wire form.
    pub fn question(&self) -> &[u8] {
        self.wire.get(12..self.question_end()).unwrap_or_default()
    }

    /// QTYPE.
    pub fn qtype(&self) -> RecordType {
        self.qtype
    }

    /// The query as it was.
    pub fn wake(self) -> Query<'static> {
        let name = Name::parse(&self.wire, 12).map_or_else(|_| Name::root(), |(name, _)| name);
        debug_assert_eq!(12 + name.as_bytes().len() + 4, self.question_end());
        Query {
            wire: Cow::Owned(self.wire.to_vec()),
            name,
            qtype: self.qtype,
            qclass: self.qclass,
            question_end: self.question_end(),
            edns: self.edns.map(|kept| Edns {
                at: kept.at as usize,
                udp_size: kept.udp_size,
                extended_rcode: kept.extended_rcode,
                version: kept.version,
                flags: kept.flags,
                options: kept.options.0 as usize..kept.options.1 as usize,
            }),
            received_size: self.received_size as usize,
            reflected: self.reflected,
        }
    }
}

impl<'a> Query<'a> {
    /// Classifies a received message (spec/coredns.md §5.2).
    pub fn receive(bytes: &'a [u8]) -> Received<'a> {
        let Some(header) = bytes.first_chunk::<12>() else { return Received::Ignore };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let flags = word(2);
        if flags & flags::QR != 0 {
            return Received::Ignore;
        }
        let kept = flags & (flags::TC | flags::RD | flags::RA | flags::AD | flags::CD);
        let opcode = flags & flags::OPCODE;
        if opcode != 0 && opcode != u16::from(Opcode::NOTIFY.0) << 11 {
            let flags = flags::QR | opcode | kept;
            return Received::Reject(Reject { rcode: Rcode::NOTIMP, flags, question: None });
        }
        let malformed = |question| {
            Received::Reject(Reject { rcode: Rcode::FORMERR, flags: flags::QR | kept, question })
        };
        if word(4) != 1 || word(6) > 1 || word(8) > 1 || word(10) > 2 {
            return malformed(None);
        }
        if bytes.len() == 12 {
            let flags = flags::QR | opcode | copied(flags);
            return Received::Reject(Reject { rcode: Rcode::SERVFAIL, flags, question: None });
        }
        let Ok(asked) = Asked::read(bytes) else { return malformed(None) };
        match Reading::of(bytes, &asked) {
            Ok(reading) if reading.is_normal => Received::Query(Query {
                wire: Cow::Borrowed(bytes),
                name: asked.name.name(),
                qtype: asked.qtype,
                qclass: asked.qclass,
                question_end: asked.end,
                edns: reading.edns,
                received_size: bytes.len(),
                reflected: None,
            }),
            Ok(reading) => match Query::normalised(bytes, &asked, &reading) {
                Ok(query) => Received::Query(query),
                Err(_) => malformed(None),
            },
            // A name that points into the header would point into another header when echoed.
            Err(_) => malformed(asked.is_whole.then_some(12..asked.end)),
        }
    }

    /// Writes the message anew: question in full and complete, records without compression, one
    /// OPT, no TSIG, RCODE 0, true counts, nothing behind the last record.
    fn normalised(
        bytes: &[u8],
        asked: &Asked<'_>,
        reading: &Reading,
    ) -> Result<Query<'static>, Malformed> {
        let message = Message::parse_behind(bytes, asked.end)?;
        let mut wire = Vec::with_capacity(bytes.len() + 64);
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        let mut writer = Writer::new(&mut wire, id, message.flags() & !flags::RCODE).uncompressed();
        let mut question = asked.name.as_bytes().to_vec();
        question.extend_from_slice(&asked.qtype.0.to_be_bytes());
        question.extend_from_slice(&asked.qclass.0.to_be_bytes());
        writer.question(&question);
        for record in message.records() {
            match record.rtype {
                RecordType::TSIG => {}
                RecordType::OPT => {
                    if reading.edns.as_ref().is_some_and(|edns| edns.at == record.at) {
                        let rdata = message.rdata(&record);
                        let (class, ttl) = (record.class, record.ttl);
                        writer.raw_record(
                            Section::Additional,
                            &[0],
                            RecordType::OPT,
                            class,
                            ttl,
                            rdata,
                        );
                    }
                }
                _ => writer.record(record.section, &message, &record, None),
            }
        }
        if writer.is_cut() {
            return Err(Malformed::TooLong);
        }
        let edns = Message::parse(&wire)?.edns();
        Ok(Query {
            name: asked.name.name(),
            qtype: asked.qtype,
            qclass: asked.qclass,
            question_end: 12 + question.len(),
            edns,
            received_size: wire.len(),
            reflected: None,
            wire: Cow::Owned(wire),
        })
    }

    /// A query made by us: RD as given, one question, no EDNS.
    pub fn new(name: &Name, qtype: RecordType, qclass: Class, rd: bool) -> Query<'static> {
        let mut wire = vec![0; 12];
        wire[2] = u8::from(rd);
        wire[5] = 1;
        wire.extend_from_slice(name.as_bytes());
        wire.extend_from_slice(&qtype.0.to_be_bytes());
        wire.extend_from_slice(&qclass.0.to_be_bytes());
        let length = wire.len();
        Query {
            wire: Cow::Owned(wire),
            name: name.clone(),
            qtype,
            qclass,
            question_end: length,
            edns: None,
            received_size: length,
            reflected: None,
        }
    }

    /// A copy that borrows nothing: what a query that waits keeps.
    pub fn into_owned(self) -> Query<'static> {
        let Query { wire, name, qtype, qclass, question_end, edns, received_size, reflected } =
            self;
        let wire = Cow::Owned(wire.into_owned());
        Query { wire, name, qtype, qclass, question_end, edns, received_size, reflected }
    }

    /// What a query that waits keeps of itself.
    pub fn keep(&self) -> KeptQuery {
        // A message is of 65535 octets, and what a plugin adds to one not much more.
        let narrow = |octets: usize| octets as u32;
        KeptQuery {
            qtype: self.qtype,
            qclass: self.qclass,
            question_end: narrow(self.question_end),
            received_size: narrow(self.received_size),
            edns: self.edns.as_ref().map(|edns| KeptEdns {
                at: narrow(edns.at),
                options: (narrow(edns.options.start), narrow(edns.options.end)),
                udp_size: edns.udp_size,
                extended_rcode: edns.extended_rcode,
                version: edns.version,
                flags: edns.flags,
            }),
            reflected: self.reflected.clone(),
            wire: self.wire.as_ref().into(),
        }
    }

    /// The whole message.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The message id.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.wire[0], self.wire[1]])
    }

    /// The flag word ([`flags`]).
    pub fn flags(&self) -> u16 {
        u16::from_be_bytes([self.wire[2], self.wire[3]])
    }

    /// The opcode: QUERY or NOTIFY.
    pub fn opcode(&self) -> Opcode {
        Opcode(((self.flags() & flags::OPCODE) >> 11) as u8)
    }

    /// QNAME, lower-cased.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// QNAME in wire form as the client spelled it.
    pub fn spelled_name(&self) -> &[u8] {
        &self.wire[12..self.question_end - 4]
    }

    /// QTYPE.
    pub fn qtype(&self) -> RecordType {
        self.qtype
    }

    /// QCLASS.
    pub fn qclass(&self) -> Class {
        self.qclass
    }

    /// The question section: QNAME, QTYPE, QCLASS in wire form.
    pub fn question(&self) -> &[u8] {
        &self.wire[12..self.question_end]
    }

    /// The client's OPT record.
    pub fn edns(&self) -> Option<&Edns> {
        self.edns.as_ref()
    }

    /// The DO bit; false without EDNS.
    pub fn wants_dnssec(&self) -> bool {
        self.edns.as_ref().is_some_and(|edns| edns.flags & Edns::DO != 0)
    }

    /// The length in octets of the message as received, in its normal form: what
    /// `coredns_dns_request_size_bytes` counts.
    pub fn received_size(&self) -> usize {
        self.received_size
    }

    /// The option codes, beside those always reflected, that a reply may carry back to the client.
    pub fn reflected_options(&self) -> &[u16] {
        self.reflected.as_deref().unwrap_or_default()
    }

    /// Lets the client's options of these codes be reflected in the reply (`rewrite edns0 local`).
    pub fn reflect_options(&mut self, codes: &Arc<[u16]>) {
        self.reflected = Some(codes.clone());
    }

    /// Replaces the question; the records behind it stay. Does nothing when `spelled_name` is not
    /// a name in wire form.
    pub fn set_question(&mut self, spelled_name: &[u8], qtype: RecordType, qclass: Class) {
        let Ok((name, _)) = Spelled::parse(spelled_name, 0) else { return };
        let mut question = name.as_bytes().to_vec();
        question.extend_from_slice(&qtype.0.to_be_bytes());
        question.extend_from_slice(&qclass.0.to_be_bytes());
        let (before, after) = (self.question_end, 12 + question.len());
        self.wire.to_mut().splice(12..before, question);
        // Records in normal form hold no pointers: they can be moved.
        let moved = |offset: usize| offset - before + after;
        if let Some(edns) = &mut self.edns {
            edns.at = moved(edns.at);
            edns.options = moved(edns.options.start)..moved(edns.options.end);
        }
        self.question_end = after;
        self.name = name.name();
        self.qtype = qtype;
        self.qclass = qclass;
    }

    /// Replaces the advertised UDP payload size; does nothing without EDNS.
    pub fn set_udp_size(&mut self, octets: u16) {
        if let Some(edns) = &mut self.edns {
            edns.udp_size = octets;
            // Owner (the root, one octet) and TYPE stand before it.
            if let Some(place) = self.wire.to_mut().get_mut(edns.at + 3..edns.at + 5) {
                place.copy_from_slice(&octets.to_be_bytes());
            }
        }
    }

    /// Replaces the flags AA, TC, RD, RA, Z, AD and CD by those of `flags`; QR, opcode and RCODE
    /// stay.
    pub fn set_flags(&mut self, flags: u16) {
        let kept = flags::QR | flags::OPCODE | flags::RCODE;
        let flags = (self.flags() & kept) | (flags & !kept);
        if flags != self.flags() {
            self.wire.to_mut()[2..4].copy_from_slice(&flags.to_be_bytes());
        }
    }

    /// Gives the client's OPT record this option, in the place of those of the same code; does
    /// nothing without EDNS, or when all options together would pass 65535 octets.
    pub fn set_option(&mut self, code: u16, data: &[u8]) {
        let Some(edns) = &mut self.edns else { return };
        let old = edns.options.clone();
        let Some(options) = with_option(&self.wire[old.clone()], code, data) else { return };
        let Ok(length) = u16::try_from(options.len()) else { return };
        edns.options.end = old.start + options.len();
        let wire = self.wire.to_mut();
        wire[old.start - 2..old.start].copy_from_slice(&length.to_be_bytes());
        wire.splice(old, options);
    }

    /// Sets the message id.
    pub fn set_id(&mut self, id: u16) {
        self.wire.to_mut()[..2].copy_from_slice(&id.to_be_bytes());
    }

    /// Replaces the whole message, keeping `received_size`: for plugins that edit it as a
    /// hickory-proto message. The message must be one that [`Query::receive`] accepts; else
    /// nothing changes.
    pub fn replace(&mut self, wire: Vec<u8>) -> Result<(), Malformed> {
        let Received::Query(query) = Query::receive(&wire) else { return Err(Malformed::Cut) };
        let Query { wire: normal, name, qtype, qclass, question_end, edns, .. } = query;
        let rewritten = match normal {
            Cow::Owned(rewritten) => Some(rewritten),
            Cow::Borrowed(_) => None,
        };
        *self = Query {
            wire: Cow::Owned(rewritten.unwrap_or(wire)),
            name,
            qtype,
            qclass,
            question_end,
            edns,
            received_size: self.received_size,
            reflected: self.reflected.take(),
        };
        Ok(())
    }
}

/// The flags that a reply of ours copies from its query: RD and CD, of opcode QUERY alone.
pub(super) fn copied(flags: u16) -> u16 {
    match flags & flags::OPCODE {
        0 => flags & (flags::RD | flags::CD),
        _ => 0,
    }
}

/// The question of a received message.
struct Asked<'b> {
    name: Spelled<'b>,
    qtype: RecordType,
    qclass: Class,
    /// Just behind it in the received bytes.
    end: usize,
    /// It is complete and holds no pointer: the received octets are its normal form.
    is_whole: bool,
}

impl<'b> Asked<'b> {
    /// Reads the question at octet 12. A message may end behind QNAME or QTYPE: what is missing
    /// counts as 0.
    #[inline]
    fn read(bytes: &'b [u8]) -> Result<Asked<'b>, Malformed> {
        let (name, name_end) = Spelled::parse(bytes, 12)?;
        let behind = &bytes[name_end..];
        let (qtype, qclass, octets) = match *behind {
            [] => (0, 0, 0),
            [high, low] => (u16::from_be_bytes([high, low]), 0, 2),
            [a, b, c, d, ..] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), 4),
            _ => return Err(Malformed::Cut),
        };
        // A pointer is two octets, what it stands for one or at least three.
        let is_whole = octets == 4 && name_end - 12 == name.as_bytes().len();
        let (qtype, qclass) = (RecordType(qtype), Class(qclass));
        Ok(Asked { name, qtype, qclass, end: name_end + octets, is_whole })
    }
}

/// What stands behind the question of a received message.
struct Reading {
    edns: Option<Edns>,
    is_normal: bool,
}

impl Reading {
    fn of(bytes: &[u8], asked: &Asked<'_>) -> Result<Reading, Malformed> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets from hex text, spaces and `|` ignored.
    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn accepted(bytes: &[u8]) -> Query<'_> {
        match Query::receive(bytes) {
            Received::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    const QUESTION: &str = "01 61 04 54 65 73 74 00 0001 0001";
    const OPT: &str = "00 0029 0578 00 00 8000 0000";

    #[test]
    fn an_option_is_replaced_or_added() {
        let opt = "00 0029 0578 00 00 8000 000d | 0003 0001 ff | 000a 0004 61626364";
        let bytes = hex(&format!("0001 0100 0001 0000 0000 0001 {QUESTION} {opt}"));
        let mut query = accepted(&bytes);
        query.set_option(3, b"node");
        let opt = "00 0029 0578 00 00 8000 0010 | 0003 0004 6e6f6465 | 000a 0004 61626364";
        assert_eq!(query.wire(), hex(&format!("0001 0100 0001 0000 0000 0001 {QUESTION} {opt}")));
        let edns = query.edns().unwrap();
        let options: Vec<_> = edns.each_option(query.wire()).collect();
        assert_eq!(options, [(3, &b"node"[..]), (10, b"abcd")]);
        query.set_option(11, b"");
        let edns = query.edns().unwrap();
        assert_eq!(edns.each_option(query.wire()).last(), Some((11, &b""[..])));
        query.set_option(12, &[0; 65535]);
        assert_eq!(query.edns().unwrap().each_option(query.wire()).count(), 3);
    }

    #[test]
    fn flags_can_be_replaced_but_not_what_makes_it_a_query() {
        let bytes = hex(&format!("0001 2100 0001 0000 0000 0000 {QUESTION}"));
        let mut query = accepted(&bytes);
        query.set_flags(!flags::RD);
        assert_eq!(query.flags(), 0x2000 | flags::AA | flags::TC | flags::RA | 0x70);
    }

    #[test]
    fn what_cannot_be_a_query_is_classified_by_its_header() {
        // Text of the message; the reaction: rcode, flag word without rcode, question echoed.
        type Reaction = Option<(Rcode, u16, bool)>;
        let table: &[(&str, &str, Reaction)] = &[
            ("eleven octets", "0001 0100 0001 0000 0000 00", None),
            ("a response", "0001 8100 0001 0000 0000 0000", None),
            ("a cut response", "0001 8100 0001", None),
            ("IQUERY", "0001 09ff 0001 0000 0000 0000", Some((Rcode::NOTIMP, 0x89b0, false))),
            ("UPDATE", "0001 2c40 0001 0000 0000 0000", Some((Rcode::NOTIMP, 0xa800, false))),
            ("no question", "0001 0100 0000 0000 0000 0000", Some((Rcode::FORMERR, 0x8100, false))),
            (
                "two questions",
                "0001 0100 0002 0000 0000 0000 00 0001 0001 00 0001 0001",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "two answers",
                "0001 0100 0001 0002 0000 0000 00 0001 0001",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "two authorities",
                "0001 0100 0001 0000 0002 0000 00 0001 0001",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "three additional",
                "0001 0100 0001 0000 0000 0003 00 0001 0001",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "a NOTIFY that does not parse",
                "0001 2100 0001 0000 0000 0000 01",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "header only",
                "0001 0130 0001 0000 0000 0000",
                Some((Rcode::SERVFAIL, 0x8110, false)),
            ),
            (
                "header only, NOTIFY",
                "0001 2100 0001 0000 0000 0000",
                Some((Rcode::SERVFAIL, 0xa000, false)),
            ),
            (
                "one octet of the type",
                "0001 0100 0001 0000 0000 0000 00 00",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "one octet of the class",
                "0001 0100 0001 0000 0000 0000 00 0001 00",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "a label type of 01",
                "0001 0100 0001 0000 0000 0000 41 00 0001 0001",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "a forward pointer",
                "0001 0100 0001 0000 0000 0000 c00e 00 0001 0001",
                Some((Rcode::FORMERR, 0x8100, false)),
            ),
            (
                "a cut OPT",
                "0001 0100 0001 0000 0000 0001 00 0001 0001 00 0029 0578 00",
                Some((Rcode::FORMERR, 0x8100, true)),
            ),
            (
                "an option that overruns",
                "0001 0100 0001 0000 0000 0001 00 0001 0001 00 0029 0578 00000000 0005 000a 0020 61",
                Some((Rcode::FORMERR, 0x8100, true)),
            ),
            (
                "OPT RDATA of one octet",
                "0001 0100 0001 0000 0000 0001 00 0001 0001 00 0029 0578 00000000 0001 00",
                Some((Rcode::FORMERR, 0x8100, true)),
            ),
        ];
        for (what, message, reaction) in table {
            let bytes = hex(message);
            match (Query::receive(&bytes), reaction) {
                (Received::Ignore, None) => {}
                (Received::Reject(reject), Some((rcode, flags, question))) => {
                    assert_eq!(reject.rcode, *rcode, "{what}");
                    assert_eq!(reject.flags, *flags, "{what}: {:04x}", reject.flags);
                    assert_eq!(reject.question.is_some(), *question, "{what}");
                }
                (other, _) => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_usual_query_is_borrowed() {
        for (additional, tail) in [("0000", ""), ("0001", OPT)] {
            let bytes = hex(&format!("1234 0120 0001 0000 0000 {additional} {QUESTION} {tail}"));
            let query = accepted(&bytes);
            assert!(matches!(query.wire, Cow::Borrowed(_)));
            assert_eq!(query.id(), 0x1234);
            assert_eq!(query.name().to_string(), "a.test.");
            assert_eq!(query.spelled_name(), b"\x01a\x04Test\0");
            assert_eq!((query.qtype(), query.qclass()), (RecordType::A, Class::IN));
            assert_eq!(query.received_size(), bytes.len());
            assert_eq!(query.wants_dnssec(), !tail.is_empty());
        }
    }

    #[test]
    fn lenient_forms_are_accepted_and_brought_into_normal_form() {
        let root = "00 0001 0001";
        let record = "00 0010 0001 00000001 0002 0161";
        let tsig = "00 00fa 00ff 00000000 0003 000000";
        let table: &[(&str, String, String)] = &[
            ("a question cut behind the name", "0001 0100 0001 0000 0000 0000 0161 00".into(),
                "0001 0100 0001 0000 0000 0000 0161 00 0000 0000".into()),
            ("a question cut behind the type", "0001 0100 0001 0001 0000 0001 00 000f".into(),
                "0001 0100 0001 0000 0000 0000 00 000f 0000".into()),
            ("counts that promise too much", format!("0001 0100 0001 0001 0001 0002 {root}"),
                format!("0001 0100 0001 0000 0000 0000 {root}")),
            ("one record of two", format!("0001 0100 0001 0000 0000 0002 {root} {OPT}"),
                format!("0001 0100 0001 0000 0000 0001 {root} {OPT}")),
            ("octets behind the end", format!("0001 0100 0001 0000 0000 0000 {root} aaaaaa"),
                format!("0001 0100 0001 0000 0000 0000 {root}")),
            ("octets behind the OPT", format!("0001 0100 0001 0000 0000 0001 {root} {OPT} aa"),
                format!("0001 0100 0001 0000 0000 0001 {root} {OPT}")),
            ("a pointer into the header", "0001 0100 0001 0000 0000 0000 0161 c006 0001 0001".into(),
                "0001 0100 0001 0000 0000 0000 0161 00 0001 0001".into()),
            ("an rcode", format!("0001 0103 0001 0000 0000 0000 {root}"),
                format!("0001 0100 0001 0000 0000 0000 {root}")),
            ("an answer record", format!("0001 0100 0001 0001 0000 0000 {root} {record}"),
                format!("0001 0100 0001 0001 0000 0000 {root} {record}")),
            ("an owner that is a pointer",
                "0001 0100 0001 0001 0000 0000 0161 00 0001 0001 c00c 0005 0001 00000001 0002 c00c".into(),
                "0001 0100 0001 0001 0000 0000 0161 00 0001 0001 016100 0005 0001 00000001 0003 016100".into()),
            ("a TSIG", format!("0001 0100 0001 0000 0000 0001 {root} {tsig}"),
                format!("0001 0100 0001 0000 0000 0000 {root}")),
            ("two OPTs", format!("0001 0100 0001 0000 0000 0002 {root} 00 0029 1000 00000000 0000 {OPT}"),
                format!("0001 0100 0001 0000 0000 0001 {root} {OPT}")),
            ("an OPT not owned by the root", format!("0001 0100 0001 0000 0000 0001 {root} 0178{OPT}"),
                format!("0001 0100 0001 0000 0000 0001 {root} {OPT}")),
            ("an OPT among the answers", format!("0001 0100 0001 0001 0000 0000 {root} {OPT}"),
                format!("0001 0100 0001 0000 0000 0000 {root}")),
        ];
        for (what, message, normal) in table {
            let bytes = hex(message);
            let query = accepted(&bytes);
            assert_eq!(query.wire(), hex(normal), "{what}");
            let again = query.wire().to_vec();
            let again = accepted(&again);
            assert_eq!(again.wire(), query.wire(), "{what}");
            assert_eq!(again.edns(), query.edns(), "{what}");
            assert_eq!(again.question(), query.question(), "{what}");
            assert_eq!(query.received_size(), query.wire().len(), "{what}");
        }
    }

    #[test]
    fn the_last_opt_wins() {
        let bytes = hex(&format!(
            "0001 0100 0001 0000 0000 0002 00 0001 0001 {OPT} 00 0029 0258 00000000 0004 0003 0000"
        ));
        let query = accepted(&bytes);
        let edns = query.edns().unwrap();
        assert_eq!((edns.udp_size, edns.flags), (600, 0));
        assert_eq!(edns.each_option(query.wire()).collect::<Vec<_>>(), [(3, &[][..])]);
    }

    #[test]
    fn a_changed_question_keeps_the_records_behind_it() {
        let bytes = hex(&format!(
            "0001 0100 0001 0000 0000 0001 {QUESTION} 00 0029 0578 00 00 8000 0007 000a 0003 313233"
        ));
        for name in [&b"\0"[..], b"\x03Abc\x02de\0"] {
            let mut query = accepted(&bytes);
            query.set_question(name, RecordType::AAAA, Class::CH);
            query.set_udp_size(1100);
            let wire = query.wire().to_vec();
            let again = accepted(&wire);
            assert_eq!(again.spelled_name(), name);
            assert_eq!(again.name(), query.name());
            assert_eq!((again.qtype(), again.qclass()), (RecordType::AAAA, Class::CH));
            assert_eq!(again.edns(), query.edns());
            assert_eq!(again.edns().unwrap().udp_size, 1100);
            assert_eq!(query.received_size(), bytes.len());
        }
    }

    #[test]
    fn a_replaced_message_must_be_a_query() {
        let bytes = hex(&format!("0001 0100 0001 0000 0000 0000 {QUESTION}"));
        let mut query = accepted(&bytes);
        assert!(query.replace(hex("0001 8100 0001 0000 0000 0000 00 0001 0001")).is_err());
        assert_eq!(query.wire(), bytes);
        query.replace(hex("0001 0100 0001 0000 0000 0000 00 0001 0001")).unwrap();
        assert_eq!(query.name(), &Name::root());
        assert_eq!(query.received_size(), bytes.len());
    }
}
