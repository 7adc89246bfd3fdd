//! The response on its way up the chain.
//!
//! Owns the buffer that becomes the reply. Holds a message without the client's own OPT handling
//! and without size limits: [`super::finish_reply`] does both at the end.

use super::message::{Malformed, Message, Record, Section};
use super::query::{Query, copied};
use super::words::{Rcode, flags};
use super::writer::Writer;

/// Whether a plugin wrote a message (spec/coredns.md §0.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Nothing: the server core makes an error reply with the rcode.
    Nothing,
    /// `wire` holds a message.
    Message,
}

/// A response message, or the fact that none was written.
#[derive(Debug)]
pub struct Response {
    /// The message when [`Written::Message`]; its id is not set yet.
    pub wire: Vec<u8>,
    /// Whether there is one.
    pub written: Written,
    /// The RCODE with its extension, 12 bits; leads over the four bits in `wire`.
    pub rcode: Rcode,
    /// The error that a handler returned beside it, in CoreDNS's words; for the `errors` plugin.
    pub error: Option<Box<str>>,
    /// The directive that wrote the message; "" when nothing was written.
    pub writer: &'static str,
    /// [`Message::uncompressed_size`] when known, else 0: see [`Response::uncompressed_size`].
    pub known_size: usize,
}

impl Default for Response {
    fn default() -> Self {
        Response::new()
    }
}

impl Response {
    /// Nothing written, SERVFAIL.
    pub fn new() -> Response {
        Response {
            wire: Vec::new(),
            written: Written::Nothing,
            rcode: Rcode::SERVFAIL,
            error: None,
            writer: "",
            known_size: 0,
        }
    }

    /// Back to the state of [`Response::new`], keeping the buffer.
    pub fn clear(&mut self) {
        self.wire.clear();
        self.written = Written::Nothing;
        self.rcode = Rcode::SERVFAIL;
        self.error = None;
        self.writer = "";
        self.known_size = 0;
    }

    /// Nothing written: the core will reply with `rcode`; `error` goes to the `errors` plugin.
    pub fn fail(&mut self, rcode: Rcode, error: Option<Box<str>>) {
        self.clear();
        self.rcode = rcode;
        self.error = error;
    }

    /// Takes a whole message as written by `writer`. The rcode is read from the header and the
    /// OPT record. The copy's counts are those of the records that are there, and octets behind
    /// the last one are left off. On an error nothing is written.
    pub fn take(&mut self, wire: &[u8], writer: &'static str) -> Result<(), Malformed> {
        self.clear();
        let message = Message::parse(wire)?;
        let extended = message.edns().map_or(0, |edns| u16::from(edns.extended_rcode) << 4);
        self.rcode = Rcode(extended | (message.flags() & flags::RCODE));
        self.wire.extend_from_slice(&wire[..message.end()]);
        let counts = [
            message.questions(),
            message.count(Section::Answer),
            message.count(Section::Authority),
            message.count(Section::Additional),
        ];
        for (place, count) in self.wire[4..12].chunks_exact_mut(2).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        self.written = Written::Message;
        self.writer = writer;
        Ok(())
    }

    /// Removes all OPT records; the extended rcode stays in `rcode`. A message that does not parse
    /// stays as it is.
    pub fn strip_opt(&mut self) {
        let Ok(message) = self.message() else { return };
        let Some(first) = message.records().find(Record::is_opt) else { return };
        let is_last = first.rdata.end == message.end();
        let count = message.count(Section::Additional);
        self.known_size = 0;
        if is_last {
            // The usual place: nothing behind it can point anywhere.
            self.wire.truncate(first.at);
            self.wire[10..12].copy_from_slice(&(count - 1).to_be_bytes());
        } else if let Some(wire) = self.without_opt() {
            self.wire = wire;
        }
    }

    /// The message written anew, OPT records left out.
    fn without_opt(&self) -> Option<Vec<u8>> {
        let message = self.message().ok()?;
        let mut wire = Vec::with_capacity(self.wire.len());
        let mut writer = Writer::copying(&mut wire, &message);
        for record in message.records().filter(|record| !record.is_opt()) {
            writer.record(record.section, &message, &record, None);
        }
        Some(wire)
    }

    /// Starts a reply to `query`: QR, opcode, RD and CD of the query (of opcode QUERY alone), its
    /// question, `rcode`, and `extra` flags (AA, …). Records are appended with [`super::Writer`] or by hand.
    pub fn start(&mut self, query: &Query<'_>, rcode: Rcode, extra: u16, writer: &'static str) {
        self.clear();
        let flags = flags::QR
            | (query.flags() & flags::OPCODE)
            | copied(query.flags())
            | extra
            | (rcode.0 & flags::RCODE);
        self.wire.extend_from_slice(&query.wire()[..2]);
        self.wire.extend_from_slice(&flags.to_be_bytes());
        self.wire.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        self.wire.extend_from_slice(query.question());
        self.written = Written::Message;
        self.rcode = rcode;
        self.writer = writer;
    }

    /// The message's flag word; 0 when nothing is written.
    pub fn flags(&self) -> u16 {
        match self.wire.get(2..4) {
            Some(&[high, low]) => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }

    /// Replaces the flag word, RCODE bits included.
    pub fn set_flags(&mut self, flags: u16) {
        if let Some(place) = self.wire.get_mut(2..4) {
            place.copy_from_slice(&flags.to_be_bytes());
        }
    }

    /// A view of the written message.
    pub fn message(&self) -> Result<Message<'_>, Malformed> {
        Message::parse(&self.wire)
    }

    /// The message's length without compression; 0 when nothing is written.
    pub fn uncompressed_size(&self) -> usize {
        match self.written {
            Written::Nothing => 0,
            Written::Message if self.known_size != 0 => self.known_size,
            Written::Message => self.message().map_or(0, |message| message.uncompressed_size()),
        }
    }
}
