//! Replies as clients get them: OPT, rcode, size.

use super::*;
use crate::dns::{Received, RecordType, Section};

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
fn a_reply_is_foreseen_to_be_cut_by_the_octet_and_where_the_upstream_has_cut_it() {
    // Without an OPT, with a bare one, with one whose cookie goes back.
    let cookie = b"\0\x0a\0\x08abcdefgh".as_slice();
    for (opt, added) in [(None, 0), (Some((512, 0, &b""[..])), 11), (Some((512, 0, cookie)), 23)] {
        let asked = query(opt);
        let mut full = Response::new();
        full.start(&asked, Rcode::NOERROR, 0, "test");
        let room = 512 - full.wire.len() - added - 11;
        for (octets, is_cut) in [(room, false), (room + 1, true)] {
            let mut response = Response::new();
            response.start(&asked, Rcode::NOERROR, 0, "test");
            let flags = response.flags();
            let mut writer = Writer::new(&mut response.wire, 0, flags);
            writer.question(asked.question());
            let null = RecordType(10);
            writer.raw_record(Section::Answer, &[0], null, Class::IN, 60, &vec![7; octets]);
            let limits = ReplyLimits::udp(&asked);
            assert_eq!(will_be_truncated(&asked, &response, limits), is_cut, "{opt:?} {octets}");
            finish_reply(&asked, &mut response, limits, fit_reply);
            assert_eq!(response.flags() & flags::TC != 0, is_cut, "{opt:?} {octets}");
            assert_eq!(response.wire.len() == 512, !is_cut, "{opt:?} {octets}");
        }
        let mut response = response(&asked, 0, POINTER);
        response.set_flags(response.flags() | flags::TC);
        assert!(will_be_truncated(&asked, &response, ReplyLimits::stream()), "{opt:?}");
    }
}

#[test]
fn the_clients_opt_comes_behind_what_is_in_the_additional_section_and_is_counted_with_it() {
    let query = query(Some((1232, 0, b"")));
    let mut response = response(&query, 0, POINTER);
    response.wire[11] = 2;
    for address in [1, 2] {
        response.wire.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x14\0\x04\xc0\0\x02");
        response.wire.push(address);
    }
    finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
    let message = response.message().unwrap();
    assert_eq!(message.count(Section::Additional), 3);
    assert_eq!(message.end(), response.wire.len());
    assert_eq!(message.edns().unwrap().udp_size, 1232);
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
            "both, the upstream's of another version",
            Some((1400, 0x8000, cookie)),
            Some((4000, 0x0007_4101, ecs)),
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
    let mut response = response(&query, 30, SPELLED);
    finish_reply(&query, &mut response, ReplyLimits::udp(&query), fit_reply);
    // All the room is theirs: nobody asked for an OPT.
    assert_eq!(response.message().unwrap().count(Section::Answer), 30);
    assert_eq!(response.flags() & flags::TC, 0);
    // The first owner is spelled unlike the question: only its labels are shared.
    assert!(response.wire.len() <= 512 && response.wire.len() + BARE_OPT > 512);
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
    let mut out = vec![1, 2, 3];
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
