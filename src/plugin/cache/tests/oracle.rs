//! Store and reply against hickory-proto: a hit says what upstream said, TTLs and AA apart.

use super::{Cached, raw_query};
use crate::dns::{Class, Query, Rcode, Response, Written, flags};
use crate::plugin::testing::nobody;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::str::FromStr;

fn names() -> impl Strategy<Value = Name> {
    prop_oneof![
        Just("a.test."),
        Just("A.TeSt."),
        Just("www.a.test."),
        Just("test."),
        Just("."),
        Just("very.long.and.deep.name.under.www.a.test."),
        Just("_sip._udp.example.org."),
    ]
    .prop_map(|text| Name::from_str(text).unwrap())
}

fn rdata() -> impl Strategy<Value = RData> {
    prop_oneof![
        any::<u32>().prop_map(|octets| RData::A(A(octets.into()))),
        any::<u128>().prop_map(|octets| RData::AAAA(AAAA(octets.into()))),
        names().prop_map(|name| RData::CNAME(CNAME(name))),
        names().prop_map(|name| RData::NS(NS(name))),
        (any::<u16>(), names()).prop_map(|(weight, name)| RData::MX(MX::new(weight, name))),
        (any::<u16>(), names()).prop_map(|(port, name)| RData::SRV(SRV::new(1, 2, port, name))),
        vec("[a-z ]{0,60}", 1..4).prop_map(|text| RData::TXT(TXT::new(text))),
        (names(), names(), any::<u32>()).prop_map(|(primary, mailbox, n)| RData::SOA(SOA::new(
            primary, mailbox, n, 1, 2, 3, n
        ))),
    ]
}

fn records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    vec(
        (names(), 0..i32::MAX as u32, rdata())
            .prop_map(|(name, ttl, rdata)| Record::from_rdata(name, ttl, rdata)),
        0..most,
    )
}

fn with_ttl(records: &[Record], ttl: u32) -> Vec<Record> {
    let mut records = records.to_vec();
    for record in &mut records {
        record.ttl = ttl;
    }
    records
}

/// The reply to `query` as the client of hickory-proto reads it.
fn replied(cached: &mut Cached, query: &Query<'_>, upstream: Option<&[u8]>) -> Message {
    let outcome = match upstream {
        Some(wire) => cached.ask(query.clone(), |_, response: &mut Response| {
            response.take(wire, "forward").unwrap();
        }),
        None => cached.ask(query.clone(), nobody),
    };
    Message::from_vec(&outcome.response.wire).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_hit_says_what_upstream_said(
        answers in records(12),
        authorities in records(4),
        additionals in records(4),
        is_nxdomain: bool,
        has_edns: bool,
        elapsed in 0u32..40,
    ) {
        let query = raw_query(flags::RD, b"\x03WWW\x01a\x04test\0", Class::IN, None);
        let mut upstream = Message::from_vec(query.wire()).unwrap();
        upstream.metadata.message_type = MessageType::Response;
        upstream.metadata.op_code = OpCode::Query;
        upstream.metadata.recursion_available = true;
        if is_nxdomain {
            upstream.metadata.response_code = ResponseCode::NXDomain;
        }
        upstream.answers = answers;
        upstream.authorities = authorities;
        upstream.additionals = additionals;
        if has_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            upstream.edns = Some(edns);
        }
        let mut cached = Cached::new("cache 3600 {\n success 1024 3600 60\n denial 1024 3600 60\n}");
        let wire = upstream.to_vec().unwrap();
        let miss = replied(&mut cached, &query, Some(&wire));
        let ttl = [&miss.answers, &miss.authorities, &miss.additionals]
            .into_iter()
            .flatten()
            .map(|record| record.ttl)
            .next()
            .unwrap_or(0);
        let mut expected = upstream.clone();
        expected.edns = None;
        expected.answers = with_ttl(&upstream.answers, ttl);
        expected.authorities = with_ttl(&upstream.authorities, ttl);
        expected.additionals = with_ttl(&upstream.additionals, ttl);
        assert_eq!(miss, expected);

        let has_soa = upstream.authorities.iter().any(|record| matches!(record.data, RData::SOA(_)));
        if is_nxdomain && !has_soa {
            return Ok(());
        }
        cached.wait(f64::from(elapsed));
        let left = ttl.saturating_sub(elapsed);
        let again = raw_query(flags::RD, b"\x03www\x01A\x04test\0", Class::IN, None);
        let hit = replied(&mut cached, &again, None);
        expected.metadata.authoritative = true;
        expected.queries = Message::from_vec(again.wire()).unwrap().queries;
        expected.answers = with_ttl(&upstream.answers, left);
        expected.authorities = with_ttl(&upstream.authorities, left);
        expected.additionals = with_ttl(&upstream.additionals, left);
        assert_eq!(hit, expected);
    }

    #[test]
    fn whatever_upstream_sends_leaves_a_message(wire in vec(any::<u8>(), 12..200), patch in any::<bool>()) {
        let query = raw_query(flags::RD, b"\x01a\0", Class::IN, None);
        let mut wire = wire;
        if patch {
            // Mostly a response to this very query, so that the walk gets further.
            let question = query.wire().len().min(wire.len());
            wire[12..question].copy_from_slice(&query.wire()[12..question]);
            wire[2] |= 0x80;
            wire[2] &= !0x78;
            wire[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 1, 0, 1]);
        }
        let mut cached = Cached::new("cache");
        for _ in 0..2 {
            let outcome = cached.ask(query.clone(), |_, response| {
                if response.take(&wire, "forward").is_err() {
                    response.fail(Rcode::SERVFAIL, None);
                }
            });
            if outcome.response.written == Written::Message {
                outcome.response.message().unwrap();
            }
        }
    }
}
