//! A query as it came in: accepted or rejected by the table of spec/coredns.md §5.2, its question
//! read in place.
//!
//! Owns the acceptance of messages and the normal form in which queries go upstream. A well-formed
//! query borrows the received bytes; one that a plugin changes, or that waits, owns its own.

use super::message::Malformed;
use super::name::Name;
use super::words::{Class, Opcode, Rcode, RecordType, flags};
use std::borrow::Cow;
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
}

/// What an arriving message turned out to be.
#[derive(Debug)]
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
}

impl<'a> Query<'a> {
    /// Classifies a received message (spec/coredns.md §5.2).
    pub fn receive(bytes: &'a [u8]) -> Received<'a> {
        let _ = bytes;
        todo!()
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
        }
    }

    /// A copy that borrows nothing: what a query that waits keeps.
    pub fn into_owned(self) -> Query<'static> {
        Query {
            wire: Cow::Owned(self.wire.into_owned()),
            ..self_without_wire(
                self.name,
                self.qtype,
                self.qclass,
                self.question_end,
                self.edns,
                self.received_size,
            )
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

    /// The length in octets of the message as received.
    pub fn received_size(&self) -> usize {
        self.received_size
    }

    /// Replaces the question; the records behind it stay.
    pub fn set_question(&mut self, spelled_name: &[u8], qtype: RecordType, qclass: Class) {
        let _ = (spelled_name, qtype, qclass);
        todo!()
    }

    /// Replaces the advertised UDP payload size; does nothing without EDNS.
    pub fn set_udp_size(&mut self, octets: u16) {
        let _ = octets;
        todo!()
    }

    /// Sets the message id.
    pub fn set_id(&mut self, id: u16) {
        self.wire.to_mut()[..2].copy_from_slice(&id.to_be_bytes());
    }

    /// Replaces the whole message, keeping `received_size`: for plugins that edit it as a
    /// hickory-proto message.
    pub fn replace(&mut self, wire: Vec<u8>) -> Result<(), Malformed> {
        let _ = wire;
        todo!()
    }
}

fn self_without_wire(
    name: Name,
    qtype: RecordType,
    qclass: Class,
    question_end: usize,
    edns: Option<Edns>,
    received_size: usize,
) -> Query<'static> {
    Query { wire: Cow::Borrowed(&[]), name, qtype, qclass, question_end, edns, received_size }
}
