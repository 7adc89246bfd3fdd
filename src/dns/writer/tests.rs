//! What is written, read back by the parser here and by hickory-proto.

use super::*;
use crate::dns::{Query, Received, ReplyLimits, Response, finish_reply, fit_reply};
use hickory_proto::op;
use hickory_proto::rr::{self, Name, RData, rdata};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable, BinEncoder, NameEncoding};
use proptest::prelude::*;

fn copy(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::copying(&mut out, message);
    for record in message.records() {
        writer.record(record.section, message, &record, None);
    }
    out
}

#[test]
fn only_the_types_of_rfc_1035_are_written_compressed() {
    // Each RDATA ends in a name that is a pointer to the question's; what is before it.
    let table: &[(RecordType, &[u8], bool)] = &[
        (RecordType::NS, b"", true),
        (RecordType::CNAME, b"", true),
        (RecordType::PTR, b"", true),
        (RecordType::MX, b"\0\x0a", true),
        (RecordType::MINFO, b"\0", true),
        (RecordType::DNAME, b"", false),
        (RecordType::SRV, b"\0\0\0\x05\x13\xc4", false),
        (RecordType::NAPTR, b"\0\x01\0\x02\x01u\x01x\0", false),
        (RecordType::AFSDB, b"\0\x01", false),
        (RecordType::RP, b"\0", false),
        (RecordType::KX, b"\0\x01", false),
        (RecordType::RRSIG, b"\0\x01\x08\x02\0\0\0\x05\0\0\0\x01\0\0\0\0\0\x07", false),
        (RecordType::NSEC, b"", false),
        (RecordType::SVCB, b"\0\x01", false),
    ];
    let name = b"\x01a\x04test\0";
    for (rtype, before, compressed) in table {
        let mut wire = b"\0\x01\x80\0\0\x01\0\x01\0\0\0\0\x01a\x04test\0\0\x01\0\x01".to_vec();
        wire.extend_from_slice(b"\xc0\x0c");
        wire.extend_from_slice(&rtype.0.to_be_bytes());
        wire.extend_from_slice(b"\0\x01\0\0\0\x05\0");
        wire.push(before.len() as u8 + 2);
        wire.extend_from_slice(before);
        wire.extend_from_slice(b"\xc0\x0c");
        let message = Message::parse(&wire).unwrap();
        let out = copy(&message);
        let written = Message::parse(&out).unwrap();
        let record = written.records().next().unwrap();
        let expected =
            if *compressed { [before, &b"\xc0\x0c"[..]] } else { [before, &name[..]] }.concat();
        assert_eq!(written.rdata(&record), expected, "{rtype}");
        assert_eq!(written.uncompressed_size(), message.uncompressed_size(), "{rtype}");
    }
}

#[test]
fn a_name_that_is_written_in_full_is_pointed_to_later() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, 1, flags::QR);
    let (class, answer) = (Class::IN, Section::Answer);
    let target = b"\x01n\x03new\x04test\0";
    writer.raw_record(answer, b"\x03old\0", RecordType::DNAME, class, 5, target);
    writer.raw_record(answer, target, RecordType::A, class, 5, &[192, 0, 2, 1]);
    let record = out.len() - 16;
    assert_eq!(out[record..record + 2], 0xc01b_u16.to_be_bytes(), "the target of the DNAME");
}

#[test]
fn rdata_of_unknown_types_is_copied_whatever_it_looks_like() {
    let wire = b"\0\x01\x80\0\0\x01\0\x01\0\0\0\0\x01u\0\0\x01\0\x01\
        \xc0\x0c\xff\0\0\x01\0\0\0\x05\0\x06\xc0\x0c\xc0\x0c\x01\x02";
    let message = Message::parse(wire).unwrap();
    assert_eq!(copy(&message), wire);
}

#[test]
fn a_record_behind_the_limit_is_left_out_and_tc_set() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, 1, flags::QR).limited_to(12 + 15);
    for _ in 0..2 {
        let address = [127, 0, 0, 1];
        writer.raw_record(Section::Answer, &[0], RecordType::A, Class::IN, 5, &address);
    }
    assert!(writer.is_cut());
    let message = Message::parse(&out).unwrap();
    assert_eq!(message.count(Section::Answer), 1);
    assert_eq!(message.flags(), flags::QR | flags::TC);
}

#[test]
fn no_message_is_longer_than_the_length_before_it_can_say_whatever_limit_is_asked_for() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, 1, flags::QR).limited_to(100_000);
    for _ in 0..3 {
        let null = RecordType(10);
        writer.raw_record(Section::Answer, &[0], null, Class::IN, 5, &[0; 30_000]);
    }
    assert!(writer.is_cut());
    assert_eq!(Message::parse(&out).unwrap().count(Section::Answer), 2);
}

#[test]
fn each_of_a_hundred_names_is_a_pointer_when_it_comes_again() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, 1, flags::QR);
    let owner =
        |count: u8| [&[2, b'0' + count / 10, b'0' + count % 10][..], b"\x04test\0"].concat();
    let mut write = |count| {
        let (section, a, class) = (Section::Answer, RecordType::A, Class::IN);
        writer.raw_record(section, &owner(count), a, class, 5, &[192, 0, 2, 1]);
    };
    (0..100).for_each(&mut write);
    (0..100).for_each(&mut write);
    // The first is in full, 99 share what stands behind their first label.
    assert_eq!(out.len(), 12 + (9 + 14) + 99 * (5 + 14) + 100 * (2 + 14));
}

#[test]
fn names_beyond_a_pointers_reach_are_written_in_full() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, 1, flags::QR);
    for count in 0..600u16 {
        let mut owner = vec![31];
        owner.resize(28, b'x');
        owner.extend_from_slice(format!("{count:04}").as_bytes());
        owner.push(0);
        for _ in 0..2 {
            let class = Class::IN;
            writer.raw_record(Section::Answer, &owner, RecordType::A, class, 5, &[127, 0, 0, 1]);
        }
    }
    assert!(out.len() > Suffixes::REACH);
    let message = Message::parse(&out).unwrap();
    assert_eq!(message.count(Section::Answer), 1200);
    assert_eq!(copy(&message), out);
}

#[test]
fn the_first_offset_that_a_pointer_cannot_hold_is_not_pointed_to() {
    for (place, is_shared) in [(Suffixes::REACH - 1, true), (Suffixes::REACH, false)] {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 1, flags::QR);
        let rest = place - 12 - 11;
        let owner = b"\x01a\x04test\0";
        let null = RecordType(10);
        writer.raw_record(Section::Answer, &[0], null, Class::IN, 5, &vec![0; rest]);
        for _ in 0..2 {
            writer.raw_record(Section::Answer, owner, null, Class::IN, 5, &[]);
        }
        let second = if is_shared { 2 } else { owner.len() };
        assert_eq!(out.len(), place + owner.len() + second + 2 * 10, "{place}");
        let message = Message::parse(&out).unwrap();
        for record in message.records().skip(1) {
            assert_eq!(message.owner(&record).as_bytes(), owner);
        }
    }
}

fn name() -> impl Strategy<Value = Name> {
    let label = prop_oneof![
        4 => prop::sample::select(vec!["a", "B", "b", "svc", "cluster", "local", "x-1"])
            .prop_map(|label| label.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..64),
    ];
    prop::collection::vec(label, 0..6).prop_filter_map("a long name", |labels| {
        let mut name = Name::from_labels(labels).ok()?;
        name.set_fqdn(true);
        Some(name)
    })
}

fn rdata() -> impl Strategy<Value = RData> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| RData::A(rdata::A(octets.into()))),
        any::<[u8; 16]>().prop_map(|octets| RData::AAAA(rdata::AAAA(octets.into()))),
        name().prop_map(|name| RData::CNAME(rdata::CNAME(name))),
        name().prop_map(|name| RData::NS(rdata::NS(name))),
        name().prop_map(|name| RData::PTR(rdata::PTR(name))),
        (any::<u16>(), name()).prop_map(|(rank, name)| RData::MX(rdata::MX::new(rank, name))),
        (any::<u16>(), any::<u16>(), any::<u16>(), name())
            .prop_map(|(a, b, c, name)| RData::SRV(rdata::SRV::new(a, b, c, name))),
        (name(), name(), any::<u32>())
            .prop_map(|(a, b, n)| RData::SOA(rdata::SOA::new(a, b, n, 1, 2, 3, n))),
        prop::collection::vec("[a-z]{0,40}", 1..4)
            .prop_map(|texts| RData::TXT(rdata::TXT::new(texts))),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(|octets| RData::Unknown {
            code: rr::RecordType::Unknown(65280),
            rdata: rdata::NULL::with(octets),
        }),
    ]
}

fn record() -> impl Strategy<Value = rr::Record> {
    (name(), 0..100_000u32, rdata())
        .prop_map(|(name, ttl, rdata)| rr::Record::from_rdata(name, ttl, rdata))
}

fn message() -> impl Strategy<Value = op::Message> {
    let section = || prop::collection::vec(record(), 0..12);
    (name(), section(), section(), section()).prop_map(|(name, answer, authority, more)| {
        let mut message = op::Message::new(7, op::MessageType::Response, op::OpCode::Query);
        message.add_query(op::Query::query(name, rr::RecordType::A));
        message.answers = answer;
        message.authorities = authority;
        message.additionals = more;
        message
    })
}

fn encoded(message: &op::Message, encoding: NameEncoding) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut encoder = BinEncoder::new(&mut wire);
    encoder.set_name_encoding(encoding);
    message.emit(&mut encoder).unwrap();
    wire
}

proptest! {
    #[test]
    fn a_copied_message_is_the_same_message(message in message()) {
        let compressed = encoded(&message, NameEncoding::Compressed);
        let plain = encoded(&message, NameEncoding::Uncompressed);
        let parsed = Message::parse(&compressed).unwrap();
        prop_assert_eq!(parsed.uncompressed_size(), plain.len());
        let out = copy(&parsed);
        prop_assert!(out.len() <= plain.len());
        prop_assert_eq!(op::Message::from_bytes(&out).unwrap(), message);
        // Copying changes nothing more.
        prop_assert_eq!(copy(&Message::parse(&out).unwrap()), out);
        // Every name we wrote is spelled as it was.
        let mut again = Vec::new();
        let mut writer = Writer::copying(&mut again, &parsed).uncompressed();
        for record in parsed.records() {
            writer.record(record.section, &parsed, &record, None);
        }
        prop_assert_eq!(again, plain);
    }

    #[test]
    fn a_finished_reply_keeps_to_its_limit(message in message(), size in prop::option::of(0..3000u16)) {
        let wire = encoded(&message, NameEncoding::Compressed);
        let mut query = encoded(&{
            let mut query = message.clone();
            (query.answers, query.authorities, query.additionals) = Default::default();
            query.metadata.message_type = op::MessageType::Query;
            query
        }, NameEncoding::Compressed);
        if let Some(size) = size {
            query[11] = 1;
            query.extend_from_slice(b"\0\0\x29");
            query.extend_from_slice(&size.to_be_bytes());
            query.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
        }
        let Received::Query(query) = Query::receive(&query) else { panic!("a query") };
        let limits = ReplyLimits::udp(&query);
        let mut response = Response::new();
        response.take(&wire, "forward").unwrap();
        finish_reply(&query, &mut response, limits, fit_reply);
        prop_assert!(response.wire.len() <= limits.octets);
        let got = op::Message::from_bytes(&response.wire).unwrap();
        let all = [&message.answers, &message.authorities, &message.additionals];
        let kept = [&got.answers, &got.authorities, &got.additionals];
        let all: Vec<_> = all.into_iter().flatten().collect();
        let kept: Vec<_> = kept.into_iter().flatten().collect();
        prop_assert!(all.starts_with(&kept));
        prop_assert_eq!(response.flags() & flags::TC != 0, kept.len() < all.len());
        prop_assert_eq!(got.edns.map(|edns| edns.max_payload()), size.map(|size| size.max(512)));
    }

    #[test]
    fn no_octets_cause_a_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&octets);
    }

    #[test]
    fn no_damage_to_a_message_causes_a_panic(
        message in message(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut wire = encoded(&message, NameEncoding::Compressed);
        for (place, octet) in damage {
            let place = place.index(wire.len());
            wire[place] = octet;
        }
        wire.truncate(cut.index(wire.len() * 2).max(12));
        survives(&wire);
    }
}

/// Takes octets as a query and as a response.
fn survives(octets: &[u8]) {
    if let Received::Query(query) = Query::receive(octets) {
        assert!(matches!(Query::receive(query.wire()), Received::Query(_)));
    }
    let mut response = Response::new();
    if response.take(octets, "forward").is_ok() {
        let message = response.message().unwrap();
        assert_eq!(message.end(), response.wire.len());
        let _ = (message.uncompressed_size(), message.question());
        let question = Query::new(&"a.".parse().unwrap(), RecordType::A, Class::IN);
        finish_reply(&question, &mut response, ReplyLimits { octets: 512 }, fit_reply);
        assert!(response.wire.len() <= 512);
        assert!(Message::parse(&response.wire).is_ok());
    }
}
