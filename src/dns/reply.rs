//! The last step of a response: id, the client's OPT, the size limit (CoreDNS: SizeAndDo and
//! Scrub of request); and the replies to messages that no plugin sees.
//!
//! Owns what every reply has in common. Never sends more than the limit, and never nothing.

use super::edns::Edns;
use super::layout::split_option;
use super::message::{Malformed, Message, Section};
use super::query::{Query, Reject, copied};
use super::response::{Response, Written};
use super::sizes;
use super::words::{Class, Rcode, RecordType, Transport, flags};
use super::writer::Writer;

/// The greatest payload of a UDP datagram over IPv4 (RFC 768, RFC 791).
const GREATEST_UDP: usize = 65507;

/// The client's options that go back to it as they came: NSID, EXPIRE, COOKIE, TCPKEEPALIVE,
/// PADDING.
const REFLECTED: [u16; 5] = [3, 9, 10, 11, 12];

/// The flag bits of an upstream's or client's OPT that a reply keeps: DO and the upper part of Z.
const KEPT_EDNS_FLAGS: u16 = 0xff00;

/// An OPT record without options: root owner, TYPE, CLASS, TTL, RDLENGTH.
const BARE_OPT: usize = 11;

/// What the way back to the client allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// The greatest size in octets of the reply: for UDP the client's size, 512 to 65507, else 65535.
    pub octets: usize,
}

impl ReplyLimits {
    /// The limit of the way that the client of `query` came.
    pub fn of(query: &Query<'_>, transport: Transport) -> ReplyLimits {
        match transport {
            Transport::Udp => ReplyLimits::udp(query),
            Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic => {
                ReplyLimits::stream()
            }
        }
    }

    /// The limit of a datagram to the client of `query`: its advertised size as the plugins left
    /// it, never below 512.
    pub fn udp(query: &Query<'_>) -> ReplyLimits {
        let advertised = query.edns().map_or(0, |edns| usize::from(edns.udp_size));
        ReplyLimits { octets: advertised.clamp(usize::from(sizes::UDP_LEAST), GREATEST_UDP) }
    }

    /// The limit of a stream: what the length prefix can say.
    pub fn stream() -> ReplyLimits {
        ReplyLimits { octets: sizes::MESSAGE_MOST }
    }
}

/// Makes the reply of `response` ready to send in `response.wire`: an error reply when nothing was
/// written; the query's id; the OPT rules; the extended rcode; and when it is longer than the limit
/// what `fit` makes of it: [`fit_reply`], or the same from where it was kept. Allocates nothing
/// when the message fits.
pub fn finish_reply(
    query: &Query<'_>,
    response: &mut Response,
    limits: ReplyLimits,
    fit: impl Fn(&mut Vec<u8>, usize) -> Result<(), Malformed>,
) {
    if response.written == Written::Nothing || response.wire.len() < sizes::HEADER {
        write_error(query, response, response.rcode);
    }
    if finish(query, response, limits.octets, &fit).is_err() {
        // Only a plugin's own mistake comes here: what upstreams send was checked when taken.
        debug_assert!(false, "a plugin wrote a message that does not parse");
        write_error(query, response, Rcode::SERVFAIL);
        let finished = finish(query, response, limits.octets, &fit);
        debug_assert!(finished.is_ok(), "an error reply parses");
    }
}

/// What [`finish_reply`] will make of `response`: for those who tell what a client gets before it
/// is made.
pub fn foreseen_reply(query: &Query<'_>, response: &Response, limits: ReplyLimits) -> Response {
    let mut reply = Response::new();
    reply.wire.clone_from(&response.wire);
    reply.written = response.written;
    reply.rcode = response.rcode;
    finish_reply(query, &mut reply, limits, fit_reply);
    reply
}

/// Whether the reply will have TC: upstream's, or because the client's limit leaves records out.
pub fn will_be_truncated(query: &Query<'_>, response: &Response, limits: ReplyLimits) -> bool {
    if response.flags() & flags::TC != 0 {
        return true;
    }
    let added = query.edns().map_or(0, |edns| BARE_OPT + edns.options.len());
    response.wire.len() + added > limits.octets
        && foreseen_reply(query, response, limits).flags() & flags::TC != 0
}

/// Puts an error reply into the buffer; error, writer and size stay what the plugins made them.
fn write_error(query: &Query<'_>, response: &mut Response, rcode: Rcode) {
    let flags = flags::QR
        | (query.flags() & flags::OPCODE)
        | copied(query.flags())
        | (rcode.0 & flags::RCODE);
    response.wire.clear();
    begin(&mut response.wire, query.id(), flags, query.question());
    response.rcode = rcode;
}

/// A header with one question.
fn begin(out: &mut Vec<u8>, id: u16, flags: u16, question: &[u8]) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(question);
}

fn finish(
    query: &Query<'_>,
    response: &mut Response,
    limit: usize,
    fit: &impl Fn(&mut Vec<u8>, usize) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let theirs = match response.wire[Section::Additional.count_place()] {
        [0, 0] => None,
        _ => response.message()?.edns(),
    };
    let mut rcode = response.rcode;
    if rcode.0 > flags::RCODE && theirs.is_none() && query.edns().is_none() {
        // Its upper bits have no place to stand in: better an error that the client understands
        // than the rest of a number, or CoreDNS's silence.
        rcode = Rcode::SERVFAIL;
        write_error(query, response, rcode);
    }
    response.wire[..2].copy_from_slice(&query.id().to_be_bytes());
    let flags = (response.flags() & !flags::RCODE) | (rcode.0 & flags::RCODE);
    response.set_flags(flags);
    let extended = (rcode.0 >> 4) as u8;
    match (theirs, query.edns()) {
        (Some(theirs), client) => {
            let mut opt = theirs;
            opt.extended_rcode = extended;
            if let Some(client) = client {
                opt.version = 0;
                opt.udp_size = client.udp_size;
                opt.flags = (opt.flags & KEPT_EDNS_FLAGS) | (client.flags & Edns::DO);
            }
            patch_opt(&mut response.wire, &opt)?;
        }
        (None, Some(client)) => append_opt(query, client, extended, &mut response.wire),
        (None, None) => {}
    }
    if response.wire.len() > limit { fit(&mut response.wire, limit) } else { Ok(()) }
}

/// The TTL field of an OPT record.
fn opt_ttl(opt: &Edns) -> u32 {
    let [high, low] = opt.flags.to_be_bytes();
    u32::from_be_bytes([opt.extended_rcode, opt.version, high, low])
}

/// Writes the fields of `opt` over the OPT record that it was read from.
fn patch_opt(wire: &mut [u8], opt: &Edns) -> Result<(), Malformed> {
    // CLASS, TTL and RDLENGTH stand right before the options, whatever owns the record.
    let start = opt.options.start.checked_sub(8).ok_or(Malformed::Cut)?;
    let fields = wire.get_mut(start..start + 6).ok_or(Malformed::Cut)?;
    fields[..2].copy_from_slice(&opt.udp_size.to_be_bytes());
    fields[2..].copy_from_slice(&opt_ttl(opt).to_be_bytes());
    Ok(())
}

/// Appends the client's own OPT, with the options that are reflected.
fn append_opt(query: &Query<'_>, client: &Edns, extended_rcode: u8, wire: &mut Vec<u8>) {
    let at = wire.len();
    let mut opt = Edns {
        at,
        udp_size: client.udp_size,
        extended_rcode,
        version: 0,
        flags: client.flags & KEPT_EDNS_FLAGS,
        options: at + BARE_OPT..at + BARE_OPT,
    };
    wire.push(0);
    wire.extend_from_slice(&RecordType::OPT.0.to_be_bytes());
    wire.extend_from_slice(&opt.udp_size.to_be_bytes());
    wire.extend_from_slice(&opt_ttl(&opt).to_be_bytes());
    wire.extend_from_slice(&[0, 0]);
    let mut rest = query.wire().get(client.options.clone()).unwrap_or_default();
    while let Some((code, option, behind)) = split_option(rest) {
        if REFLECTED.contains(&code) || query.reflected_options().contains(&code) {
            wire.extend_from_slice(option);
        }
        rest = behind;
    }
    opt.options.end = wire.len();
    // They are a part of the client's own RDATA: their length fits.
    let length = opt.options.len() as u16;
    wire[at + 9..at + BARE_OPT].copy_from_slice(&length.to_be_bytes());
    let place = Section::Additional.count_place();
    let count = u16::from_be_bytes([wire[place.start], wire[place.start + 1]]).saturating_add(1);
    wire[place].copy_from_slice(&count.to_be_bytes());
}

/// The message within `limit` octets: compressed, and where that is not enough without its last
/// records and with TC (RFC 2181 §9). The OPT stays, if need be without its options. What it
/// becomes follows from the octets and the limit alone.
///
/// # Errors
///
/// [`Malformed`] when it is no message.
pub fn fit_reply(reply: &mut Vec<u8>, limit: usize) -> Result<(), Malformed> {
    let message = Message::parse(reply)?;
    let opt = message.edns();
    let mut wire = Vec::with_capacity(limit.min(message.wire().len()));
    let mut options =
        opt.as_ref().and_then(|opt| message.wire().get(opt.options.clone())).unwrap_or_default();
    // Only options can be so long that header, question and OPT alone pass the limit.
    if opt.is_some() && message.question_end() + BARE_OPT + options.len() > limit {
        options = &[];
    }
    let reserved = if opt.is_some() { BARE_OPT + options.len() } else { 0 };
    let mut writer =
        Writer::copying(&mut wire, &message).limited_to(limit.saturating_sub(reserved));
    for record in message.records().filter(|record| !record.is_opt()) {
        writer.record(record.section, &message, &record, None);
        if writer.is_cut() {
            break;
        }
    }
    if let Some(opt) = opt {
        writer.opt(Class(opt.udp_size), opt_ttl(&opt), options);
    }
    *reply = wire;
    Ok(())
}

/// Writes the reply to a rejected message into `out` (cleared first).
pub fn reject_reply(received: &[u8], reject: &Reject, out: &mut Vec<u8>) {
    let id = received.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let flags = reject.flags | (reject.rcode.0 & flags::RCODE);
    out.clear();
    match reject.question.clone().and_then(|range| received.get(range)) {
        Some(question) => begin(out, id, flags, question),
        None => {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&flags.to_be_bytes());
            out.extend_from_slice(&[0; 8]);
        }
    }
}

/// Writes the reply to a query of an EDNS version that does not exist into `out` (cleared first):
/// BADVERS in an OPT of version 0 and size 0.
pub fn badvers_reply(query: &Query<'_>, out: &mut Vec<u8>) {
    let flags = flags::QR | (query.flags() & flags::OPCODE) | copied(query.flags());
    out.clear();
    begin(out, query.id(), flags | (Rcode::BADVERS.0 & flags::RCODE), query.question());
    out[11] = 1;
    out.push(0);
    out.extend_from_slice(&RecordType::OPT.0.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&[(Rcode::BADVERS.0 >> 4) as u8, 0, 0, 0]);
    out.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Received, Section};

    /// A query for `a.test. A` with this OPT: size, TTL field, options.
    fn query(opt: Option<(u16, u32, &[u8])>) -> Query<'static> {
        let mut wire = b"\x12\x34\x01\x10\0\x01\0\0\0\0\0\0\x01A\x04test\0\0\x01\0\x01".to_vec();
        if let Some((size, ttl, options)) = opt {
            wire[11] = 1;
            wire.extend_from_slice(&opt_record(size, ttl, options));
        }
        match Query::receive(&wire) {
            Received::Query(query) => query.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn opt_record(size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
        let mut record = b"\0\0\x29".to_vec();
        record.extend_from_slice(&size.to_be_bytes());
        record.extend_from_slice(&ttl.to_be_bytes());
        record.extend_from_slice(&(options.len() as u16).to_be_bytes());
        record.extend_from_slice(options);
        record
    }

    /// A response with `addresses` A records whose owners are spelled out or pointers.
    fn response(query: &Query<'_>, addresses: u8, owner: &[u8]) -> Response {
        let mut response = Response::new();
        response.start(query, Rcode::NOERROR, flags::AA, "cache");
        response.wire[7] = addresses;
        for address in 0..addresses {
            response.wire.extend_from_slice(owner);
            response.wire.extend_from_slice(b"\0\x01\0\x01\0\0\0\x14\0\x04\xc0\0\x02");
            response.wire.push(address);
        }
        response
    }

    fn add_opt(response: &mut Response, size: u16, ttl: u32, options: &[u8]) {
        response.wire[11] += 1;
        response.wire.extend_from_slice(&opt_record(size, ttl, options));
    }

    const POINTER: &[u8] = b"\xc0\x0c";
    const SPELLED: &[u8] = b"\x01a\x04test\0";

    #[test]
    fn a_reply_that_will_be_cut_is_foreseen() {
        let asked = query(Some((600, 0, b"")));
        let limits = ReplyLimits::of(&asked, Transport::Udp);
        for (records, is_cut) in [(1, false), (35, false), (36, true)] {
            let mut response = Response::new();
            response.start(&asked, Rcode::NOERROR, 0, "test");
            let flags = response.flags();
            let mut writer = Writer::new(&mut response.wire, 0, flags).uncompressed();
            writer.question(asked.question());
            for _ in 0..records {
                let name = asked.name().as_bytes();
                let a = RecordType::A;
                writer.raw_record(Section::Answer, name, a, Class::IN, 60, &[192, 0, 2, 1]);
            }
            assert_eq!(will_be_truncated(&asked, &response, limits), is_cut, "{records}");
            assert!(!will_be_truncated(&asked, &response, ReplyLimits::stream()), "{records}");
            let foreseen = foreseen_reply(&asked, &response, limits).wire;
            finish_reply(&asked, &mut response, limits, fit_reply);
            assert_eq!(foreseen, response.wire, "{records}");
        }
    }

    #[test]
    fn nothing_written_becomes_an_error_reply() {
        let query = query(Some((1232, 0x8000, b"\0\x03\0\0")));
        let mut response = Response::new();
        response.fail(Rcode::REFUSED, Some("why".into()));
        finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
        let message = response.message().unwrap();
        assert_eq!(message.flags(), 0x8115);
        assert_eq!(response.wire[12..24], *query.question());
        let edns = message.edns().unwrap();
        assert_eq!((edns.udp_size, edns.version, edns.flags), (1232, 0, 0x8000));
        assert_eq!(response.wire[edns.options], *b"\0\x03\0\0");
        assert_eq!(response.error.as_deref(), Some("why"));
        assert_eq!(response.uncompressed_size(), 0);
    }

    #[test]
    fn the_opt_of_a_reply_follows_from_both_sides() {
        let cookie = b"\0\x0a\0\x08abcdefgh".as_slice();
        let ecs = b"\0\x08\0\x04\0\x01\0\0".as_slice();
        // The client's OPT, the upstream's, the reply's.
        type Opt<'o> = Option<(u16, u32, &'o [u8])>;
        let table: &[(&str, Opt<'_>, Opt<'_>, Opt<'_>)] = &[
            ("neither", None, None, None),
            ("the upstream's alone", None, Some((4000, 0x8001, ecs)), Some((4000, 0x8001, ecs))),
            ("the client's alone", Some((100, 0xffff, cookie)), None, Some((100, 0xff00, cookie))),
            ("an option that is not reflected", Some((0, 0, ecs)), None, Some((0, 0, b""))),
            (
                "both",
                Some((1400, 0x8000, cookie)),
                Some((4000, 0x4101, ecs)),
                Some((1400, 0xc100, ecs)),
            ),
        ];
        for (what, client, upstream, expected) in table {
            let query = query(*client);
            let mut response = response(&query, 1, POINTER);
            if let Some((size, ttl, options)) = *upstream {
                add_opt(&mut response, size, ttl, options);
            }
            finish_reply(&query, &mut response, ReplyLimits::stream(), fit_reply);
            let message = response.message().unwrap();
            let got = message.edns().map(|edns| {
                let options = response.wire[edns.options.clone()].to_vec();
                (edns.udp_size, opt_ttl(&edns), options)
            });
            let expected = expected.map(|(size, ttl, options)| (size, ttl, options.to_vec()));
            assert_eq!(got, expected, "{what}");
            assert_eq!(message.end(), response.wire.len(), "{what}");
        }
    }

    #[test]
    fn a_registered_option_is_reflected() {
        let mut query = query(Some((1232, 0, b"\xff\xee\0\x01x\xff\xef\0\0")));
        query.reflect_options(&[0xffee].into());
        let mut response = response(&query, 1, POINTER);
        finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
        let edns = response.message().unwrap().edns().unwrap();
        assert_eq!(response.wire[edns.options], *b"\xff\xee\0\x01x");
    }

    #[test]
    fn an_extended_rcode_stands_in_the_opt_or_becomes_servfail() {
        for (opt, rcode, edns) in
            [(None, Rcode::SERVFAIL, None), (Some((1232, 0, &b""[..])), Rcode(7), Some(1))]
        {
            let query = query(opt);
            let mut response = response(&query, 0, POINTER);
            response.rcode = Rcode::BADCOOKIE;
            finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
            let message = response.message().unwrap();
            assert_eq!(message.flags() & flags::RCODE, rcode.0);
            assert_eq!(message.edns().map(|edns| edns.extended_rcode), edns);
        }
    }

    #[test]
    fn the_greatest_rcode_of_a_header_needs_no_opt() {
        let query = query(None);
        let mut response = response(&query, 0, POINTER);
        response.rcode = Rcode(15);
        finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
        assert_eq!(response.flags() & flags::RCODE, 15);
    }

    #[test]
    fn an_rcode_without_extension_clears_the_upstreams_upper_bits() {
        let query = query(Some((1232, 0, b"")));
        let mut response = response(&query, 0, POINTER);
        add_opt(&mut response, 1232, 0x0100_0000, b"");
        response.rcode = Rcode::NXDOMAIN;
        finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
        let message = response.message().unwrap();
        assert_eq!(message.flags() & flags::RCODE, 3);
        assert_eq!(message.edns().unwrap().extended_rcode, 0);
    }

    #[test]
    fn a_header_alone_is_a_message_and_sent_as_it_is() {
        let query = query(None);
        let mut response = Response::new();
        response.take(b"\0\0\x81\x05\0\0\0\0\0\0\0\0", "forward").unwrap();
        finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
        assert_eq!(response.wire, b"\x12\x34\x81\x05\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn what_fits_is_sent_as_it_is() {
        let query = query(None);
        let mut response = response(&query, 21, SPELLED);
        let before = response.wire.clone();
        let place = response.wire.as_ptr();
        assert_eq!(before.len(), 24 + 21 * 22);
        finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
        assert_eq!(response.wire, before);
        assert_eq!(response.wire.as_ptr(), place);
    }

    #[test]
    fn what_fits_only_compressed_is_compressed() {
        let query = query(None);
        let mut response = response(&query, 28, SPELLED);
        finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
        assert_eq!(response.message().unwrap().count(Section::Answer), 28);
        assert_eq!(response.flags() & flags::TC, 0);
        // The first owner is spelled unlike the question: only its labels are shared.
        assert!(response.wire.len() <= 512);
    }

    #[test]
    fn what_does_not_fit_loses_its_last_records_and_says_so() {
        for (size, addresses) in [(0, 29), (512, 29), (600, 35), (4096, 200)] {
            let query = query(Some((size, 0, b"")));
            let limits = ReplyLimits::udp(&query);
            let mut response = response(&query, 240, POINTER);
            response.wire[9] = 1;
            response.wire.extend_from_slice(b"\xc0\x0e\0\x02\0\x01\0\0\0\x14\0\x02\xc0\x0e");
            finish_reply(&query, &mut response, limits, fit_reply);
            assert!(response.wire.len() <= limits.octets, "{size}");
            let message = response.message().unwrap();
            let cut = size < 4096;
            assert_eq!(response.flags() & flags::TC != 0, cut, "{size}");
            assert_eq!(message.count(Section::Authority), u16::from(!cut), "{size}");
            assert!(message.count(Section::Answer) >= addresses, "{size}");
            assert_eq!(message.edns().unwrap().udp_size, size);
            assert_eq!(message.end(), response.wire.len());
        }
    }

    #[test]
    fn options_longer_than_the_limit_are_left_out() {
        let mut padding = b"\0\x0c\x04\0".to_vec();
        padding.resize(4 + 1024, 0);
        let query = query(Some((512, 0, &padding)));
        let mut response = response(&query, 1, POINTER);
        finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
        assert!(response.wire.len() <= 512);
        let message = response.message().unwrap();
        assert!(message.edns().unwrap().options.is_empty());
        assert_eq!(message.count(Section::Answer), 1);
        assert_eq!(response.flags() & flags::TC, 0);
    }

    #[test]
    fn options_that_leave_no_octet_for_a_record_stay() {
        // With header, question and OPT they make the limit full.
        for (length, kept) in [(512 - 24 - 11, 512 - 24 - 11), (512 - 24 - 11 + 1, 0)] {
            let mut padding = b"\0\x0c".to_vec();
            padding.extend_from_slice(&(length as u16 - 4).to_be_bytes());
            padding.resize(length, 0);
            let query = query(Some((512, 0, &padding)));
            let mut response = response(&query, 1, POINTER);
            finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
            assert_eq!(response.message().unwrap().edns().unwrap().options.len(), kept);
            assert_eq!(response.flags() & flags::TC != 0, kept > 0);
            assert!(response.wire.len() <= 512);
        }
    }

    #[test]
    fn a_rejected_message_gets_its_header_back() {
        let received = b"\x12\x34\x29\0\0\x01\0\0\0\0\0\0";
        let Received::Reject(reject) = Query::receive(received) else { panic!("UPDATE") };
        let mut out = vec![1, 2, 3];
        reject_reply(received, &reject, &mut out);
        assert_eq!(out, b"\x12\x34\xa9\x04\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn badvers_is_an_opt_of_version_0() {
        let query = query(Some((1232, 0x0001_8000, b"")));
        let mut out = Vec::new();
        badvers_reply(&query, &mut out);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.flags(), 0x8110);
        let edns = message.edns().unwrap();
        assert_eq!((edns.extended_rcode, edns.version, edns.udp_size), (1, 0, 0));
        assert_eq!(out[12..24], *query.question());
    }

    #[test]
    fn no_datagram_is_longer_than_one_can_be() {
        for (asked, octets) in [(0, 512), (511, 512), (4096, 4096), (65535, 65507)] {
            assert_eq!(ReplyLimits::udp(&query(Some((asked, 0, b"")))).octets, octets);
        }
        assert_eq!(ReplyLimits::udp(&query(None)).octets, 512);
    }
}
