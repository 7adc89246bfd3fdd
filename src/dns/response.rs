//! The response on its way up the chain.
//!
//! Owns the buffer that becomes the reply. Holds a message without the client's own OPT handling
//! and without size limits: [`super::finish_reply`] does both at the end.

use super::edns::Edns;
use super::layout::with_option;
use super::malformed::Malformed;
use super::message::Message;
use super::query::{Query, copied};
use super::record::{Record, Section};
use super::sizes;
use super::words::{Rcode, flags};
use super::writer::Writer;

/// Whether a plugin wrote a message (CoreDNS: plugin.ClientWrite).
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
    /// The directive that the message is ascribed to: who wrote it, or the outermost that wrapped
    /// the writer ([`Response::pass_through`]); "" when nothing was written.
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

    /// The response for a query that waits, and a clear one in its place. The buffer stays here: thousands may
    /// wait, each without room for more than it has.
    pub fn leave_buffer(&mut self) -> Response {
        let mut waiting = std::mem::take(self);
        std::mem::swap(&mut waiting.wire, &mut self.wire);
        waiting.wire = self.wire.as_slice().into();
        self.wire.clear();
        waiting
    }

    /// Nothing written: the core will reply with `rcode`; `error` goes to the `errors` plugin.
    pub fn fail(&mut self, rcode: Rcode, error: Option<Box<str>>) {
        self.clear();
        self.rcode = rcode;
        self.error = error;
    }

    /// A message passes through the hands of the directive `wrapper`, which counts as its writer
    /// from now on, as CoreDNS's metrics have it.
    pub fn pass_through(&mut self, wrapper: &'static str) {
        if self.written == Written::Message {
            self.writer = wrapper;
        }
    }

    /// Takes a whole message as written by `writer`. The rcode is read from the header and the
    /// OPT record. What is kept is the message in our own form: names compressed by us, true
    /// counts, nothing behind the last record. So no pointer of an upstream's making can lead
    /// into a TTL that `cache` counts down. On an error nothing is written.
    pub fn take(&mut self, wire: &[u8], writer: &'static str) -> Result<(), Malformed> {
        self.clear();
        let message = Message::parse(wire)?;
        let mut extended = 0;
        let mut out = Writer::copying(&mut self.wire, &message);
        for record in message.records() {
            if record.is_opt() {
                extended = u16::from(Edns::read(&record).extended_rcode) << 4;
                let (rtype, class, rdata) = (record.rtype, record.class, message.rdata(&record));
                out.raw_record(record.section, &[0], rtype, class, record.ttl, rdata);
            } else {
                out.record(record.section, &message, &record, None);
            }
        }
        self.rcode = Rcode(extended | (message.flags() & flags::RCODE));
        self.written = Written::Message;
        self.writer = writer;
        Ok(())
    }

    /// Gives the message's own OPT record, if it has one, this option in the place of those of the
    /// same code. Does nothing when the message would pass 65535 octets.
    pub fn set_option(&mut self, code: u16, data: &[u8]) {
        if let Some(wire) = self.with_option(code, data) {
            self.wire = wire;
            self.known_size = 0;
        }
    }

    /// The message written anew, its last OPT record with the option and the only one.
    fn with_option(&self, code: u16, data: &[u8]) -> Option<Vec<u8>> {
        let message = self.message().ok()?;
        let opt = message.records().filter(Record::is_opt).last()?;
        let options = with_option(message.rdata(&opt), code, data)?;
        let mut wire = Vec::with_capacity(self.wire.len() + 4 + data.len());
        let mut writer = Writer::copying(&mut wire, &message);
        for record in message.records().filter(|record| !record.is_opt()) {
            writer.record(record.section, &message, &record, None);
        }
        writer.raw_record(opt.section, &[0], opt.rtype, opt.class, opt.ttl, &options);
        (!writer.is_cut()).then_some(wire)
    }

    /// Removes all records behind the answer section, OPT included; the extended rcode stays in
    /// `rcode`. Allocates nothing.
    pub fn keep_answers(&mut self) {
        let Ok(message) = self.message() else { return };
        let answers = message.records().take_while(|record| record.section == Section::Answer);
        let end = answers.last().map_or(message.question_end(), |record| record.rdata.end);
        // What is cut off stood behind all that stays: no pointer leads into it.
        self.wire.truncate(end);
        if let Some(counts) =
            self.wire.get_mut(Section::Authority.count_place().start..sizes::HEADER)
        {
            counts.fill(0);
        }
        self.known_size = 0;
    }

    /// Starts a reply to `query`: QR, opcode, RD and CD of the query (of opcode QUERY alone), its
    /// question, `rcode`, and `extra` flags (AA, …). No records.
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

    /// As [`Response::start`]; gives what appends records.
    pub fn start_with_records(
        &mut self,
        query: &Query<'_>,
        rcode: Rcode,
        extra: u16,
        writer: &'static str,
    ) -> Writer<'_> {
        self.start(query, rcode, extra, writer);
        let flags = self.flags();
        let mut records = Writer::new(&mut self.wire, query.id(), flags);
        records.question(query.question());
        records
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
    ///
    /// # Errors
    ///
    /// What of it is malformed: a plugin's mistake, or that nothing is written.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Class, Name, Received, RecordType};

    fn query() -> Query<'static> {
        Query::new(&"a.test.".parse().unwrap(), RecordType::A, Class::IN)
    }

    #[test]
    fn a_taken_message_has_true_counts_and_its_whole_rcode() {
        // BADCOOKIE in header and OPT; ANCOUNT and ARCOUNT promise more than there is.
        let wire = b"\0\x01\x81\x07\0\x01\0\0\0\0\0\x02\0\0\x01\0\x01\
            \0\0\x29\x04\xd0\x01\0\0\0\0\0";
        let mut response = Response::new();
        response.take(wire, "forward").unwrap();
        assert_eq!(response.rcode, Rcode::BADCOOKIE);
        assert_eq!(response.wire[4..12], [0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(response.uncompressed_size(), wire.len());
        assert!(response.take(&wire[..wire.len() - 1], "forward").is_err());
        assert_eq!(response.written, Written::Nothing);
    }

    #[test]
    fn what_is_cleared_or_fails_has_nothing_of_what_it_was() {
        let empty = |rcode| Response { rcode, ..Response::new() };
        let used = || {
            let mut response = Response::new();
            response.start(&query(), Rcode::NXDOMAIN, 0, "cache");
            response.error = Some("why".into());
            response.known_size = 24;
            response
        };
        let (mut cleared, mut failed) = (used(), used());
        cleared.clear();
        assert_eq!(format!("{cleared:?}"), format!("{:?}", empty(Rcode::SERVFAIL)));
        failed.fail(Rcode::REFUSED, None);
        assert_eq!(format!("{failed:?}"), format!("{:?}", empty(Rcode::REFUSED)));
        // Nobody wrote: nobody is its writer.
        failed.pass_through("errors");
        assert_eq!(failed.writer, "");
    }

    #[test]
    fn a_query_that_waits_takes_a_buffer_along_only_with_what_is_in_it() {
        let mut response = Response::new();
        response.wire.reserve(100);
        assert_eq!(response.leave_buffer().wire.capacity(), 0);
        assert!(response.wire.capacity() >= 100);
        response.wire.push(7);
        assert_eq!(response.leave_buffer().wire, [7]);
        assert_eq!((response.written, response.wire.as_slice()), (Written::Nothing, &[][..]));
    }

    #[test]
    fn a_pointer_into_a_ttl_is_not_kept() {
        // The second owner is the low octet of the first record's TTL: today the root.
        let wire = b"\0\x01\x81\0\0\x01\0\x02\0\0\0\0\x01a\0\0\x01\0\x01\
            \xc0\x0c\0\x01\0\x01\0\0\x01\0\0\x04\x7f\0\0\x01\
            \xc0\x1c\0\x01\0\x01\0\0\x01\0\0\x04\x7f\0\0\x01";
        let mut response = Response::new();
        response.take(wire, "forward").unwrap();
        let places: Vec<usize> =
            response.message().unwrap().records().map(|record| record.ttl_at).collect();
        assert_eq!(response.wire[places[0] + 3], 0);
        for place in places {
            response.wire[place..place + 4].copy_from_slice(&[63; 4]);
        }
        let message = response.message().unwrap();
        let owner = message.owner(&message.records().nth(1).unwrap());
        assert_eq!(owner, Name::root());
    }

    #[test]
    fn an_option_goes_into_the_messages_own_opt() {
        let mut response = Response::new();
        response.start(&query(), Rcode::NOERROR, 0, "forward");
        let bare = response.wire.clone();
        response.set_option(3, b"node");
        assert_eq!(response.wire, bare);
        response.wire[11] = 1;
        response.wire.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0\0\x05\0\x03\0\x01x");
        response.set_option(3, b"node");
        let edns = response.message().unwrap().edns().unwrap();
        assert_eq!((edns.udp_size, edns.flags), (1232, Edns::DO));
        assert_eq!(response.wire[edns.options], *b"\0\x03\0\x04node");
        response.known_size = response.uncompressed_size();
        response.set_option(10, b"cookie");
        assert_eq!(response.uncompressed_size(), response.wire.len());
        let before = response.wire.clone();
        response.set_option(3, &[0; 65_530]);
        assert_eq!(response.wire, before);
    }

    #[test]
    fn answers_are_kept_alone() {
        let mut response = Response::new();
        response.start(&query(), Rcode::NOERROR, 0, "forward");
        response.keep_answers();
        assert_eq!(response.wire[12..], *query().question());
        response.wire[7] = 1;
        response.wire.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x05\0\x04\x01x\xc0\x0c");
        let answer = response.wire.clone();
        response.wire[9] = 1;
        response.wire[11] = 1;
        response.wire.extend_from_slice(b"\xc0\x0c\0\x02\0\x01\0\0\0\x05\0\x02\xc0\x0c");
        response.wire.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
        response.known_size = response.uncompressed_size();
        response.keep_answers();
        assert_eq!(response.wire, answer);
        assert!(response.uncompressed_size() > answer.len(), "the pointers are names");
        assert_eq!(response.uncompressed_size(), response.message().unwrap().uncompressed_size());
    }

    #[test]
    fn a_reply_to_a_notify_copies_neither_rd_nor_cd() {
        let bytes = b"\0\x01\x21\x10\0\x01\0\0\0\0\0\0\0\0\x06\0\x01";
        let Received::Query(query) = Query::receive(bytes) else { panic!("a NOTIFY is accepted") };
        let mut response = Response::new();
        response.start(&query, Rcode::NOERROR, 0, "cache");
        assert_eq!(response.flags(), 0xa000);
    }
}
