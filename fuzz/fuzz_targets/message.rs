//! Any octets as a query and as a response: accepted or refused, never a panic; what is accepted
//! is accepted again, and every reply keeps to its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodens::dns::{
    Class, Message, Query, Received, RecordType, ReplyLimits, Response, Writer, badvers_reply,
    finish_reply, fit_reply, reject_reply,
};

fuzz_target!(|octets: &[u8]| {
    let mut out = Vec::new();
    let query = match Query::receive(octets) {
        Received::Query(query) => query,
        Received::Reject(reject) => {
            reject_reply(octets, &reject, &mut out);
            Message::parse(&out).expect("the reply to a rejected message parses");
            plain_query()
        }
        Received::Ignore => plain_query(),
    };
    let Received::Query(again) = Query::receive(query.wire()) else {
        panic!("the normal form is accepted");
    };
    assert_eq!(again.wire(), query.wire());
    assert_eq!(again.edns(), query.edns());
    assert_eq!(again.name(), query.name());
    badvers_reply(&query, &mut out);
    Message::parse(&out).expect("BADVERS parses");
    copied_in_full(&query);

    let limits = ReplyLimits::udp(&query);
    let mut response = Response::new();
    finish_reply(&query, &mut response, limits, fit_reply);
    holds(&response, limits);
    if response.take(octets, "forward").is_ok() {
        let before = response.uncompressed_size();
        finish_reply(&query, &mut response, limits, fit_reply);
        holds(&response, limits);
        assert!(before >= 12);
    }
    if response.take(octets, "forward").is_ok() {
        finish_reply(&query, &mut response, ReplyLimits::stream(), fit_reply);
        holds(&response, ReplyLimits::stream());
    }
});

fn plain_query() -> Query<'static> {
    let name = "a.test.".parse().expect("a name");
    Query::new(&name, RecordType::A, Class::IN)
}

/// Copies the message without and with compression: it stays the same message.
fn copied_in_full(query: &Query<'_>) {
    let message = Message::parse(query.wire()).expect("an accepted query parses");
    let mut sizes = Vec::new();
    for compressed in [true, false] {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, query.id(), query.flags());
        if !compressed {
            writer = writer.uncompressed();
        }
        writer.question(query.question());
        for record in message.records() {
            writer.record(record.section, &message, &record, None);
        }
        let copy = Message::parse(&out).expect("a copy parses");
        assert_eq!(copy.records().count(), message.records().count());
        for (one, other) in copy.records().zip(message.records()) {
            assert_eq!(copy.owner(&one), message.owner(&other));
            assert_eq!((one.rtype, one.class, one.ttl), (other.rtype, other.class, other.ttl));
        }
        sizes.push(copy.uncompressed_size());
    }
    assert_eq!(sizes[0], sizes[1]);
}

fn holds(response: &Response, limits: ReplyLimits) {
    assert!(response.wire.len() <= limits.octets);
    let message = response.message().expect("a reply parses");
    assert_eq!(message.end(), response.wire.len());
}
