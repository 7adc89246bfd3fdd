//! A query as it came in: accepted or rejected as CoreDNS does, its question read in place.
//!
//! Owns the acceptance of messages and the normal form in which queries go upstream. A well-formed
//! query borrows the received bytes; one that a plugin changes, or that waits, owns its own.

mod kept;
mod reading;

use super::edns::Edns;
use super::layout::with_option;
use super::malformed::Malformed;
use super::message::Message;
use super::name::{Name, Spelled};
use super::record::Section;
use super::sizes;
use super::words::{Class, Opcode, Rcode, RecordType, flags};
use super::writer::Writer;
pub use kept::KeptQuery;
use reading::{Asked, Reading};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

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

impl<'a> Query<'a> {
    /// Classifies a received message.
    pub fn receive(bytes: &'a [u8]) -> Received<'a> {
        let Some(header) = bytes.first_chunk::<{ sizes::HEADER }>() else {
            return Received::Ignore;
        };
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
        if bytes.len() == sizes::HEADER {
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
            Err(_) => malformed(asked.is_whole.then_some(sizes::HEADER..asked.end)),
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
            question_end: sizes::HEADER + question.len(),
            edns,
            received_size: wire.len(),
            reflected: None,
            wire: Cow::Owned(wire),
        })
    }

    /// A query made by us: id 0, opcode QUERY, RD and no other flag, one question, no EDNS.
    /// [`Query::set_flags`] makes it one without RD.
    pub fn new(name: &Name, qtype: RecordType, qclass: Class) -> Query<'static> {
        let mut wire = vec![0; sizes::HEADER];
        wire[flags::PLACE].copy_from_slice(&flags::RD.to_be_bytes());
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
        &self.wire[sizes::HEADER..self.question_end - sizes::TYPE_AND_CLASS]
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
        &self.wire[sizes::HEADER..self.question_end]
    }

    /// The client's OPT record.
    pub fn edns(&self) -> Option<&Edns> {
        self.edns.as_ref()
    }

    /// The DO bit; false without EDNS.
    pub fn wants_dnssec(&self) -> bool {
        self.edns.as_ref().is_some_and(|edns| edns.flags & Edns::DO != 0)
    }

    /// RD, of opcode QUERY alone: whoever answers is to find out what it does not know (RFC 1035 §4.1.1).
    pub fn wants_recursion(&self) -> bool {
        copied(self.flags()) & flags::RD != 0
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
        let (before, after) = (self.question_end, sizes::HEADER + question.len());
        self.wire.to_mut().splice(sizes::HEADER..before, question);
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
            self.wire.to_mut()[flags::PLACE].copy_from_slice(&flags.to_be_bytes());
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
    ///
    /// # Errors
    ///
    /// [`Malformed::Cut`] for a message that is no query.
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

#[cfg(test)]
mod tests;
