//! Any octets as the upstream's answer to a query: what the cache gives back later has the same
//! records as the first reply, at any moment of its life.
//!
//! The first octet moves the clock between the two, the second chooses the query.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodens::dns::{Message, Name, RecordType, Section, Transport, flags};
use std::time::Duration;

#[path = "../../benches/rig/mod.rs"]
mod rig;
use rig::{Outcome, Rig};

const COREFILE: &str = ".:53 {
    cache 3600 {
        serve_stale 1h
        servfail 5s
    }
    forward . 192.0.2.53
}
";

fuzz_target!(|octets: &[u8]| {
    let [clock, choice, upstream @ ..] = octets else { return };
    let mut rig = Rig::new(COREFILE);
    let over_tcp = choice & 1 != 0;
    rig.set_transport(if over_tcp { Transport::Tcp } else { Transport::Udp });
    let size = (choice & 2 != 0).then_some(1232);
    let first = rig::query(0x1234, b"\x01a\x04test\0", RecordType::A.0, size);
    let Outcome::Asked(parked) = rig.receive(&first) else { panic!("an empty cache asks") };
    // Most answers must fit the question, or nothing is ever stored.
    let mut answer = upstream.to_vec();
    if choice & 4 == 0 {
        let asked = &first[12..12 + 12];
        let mut whole = first[..12].to_vec();
        for (place, octet) in whole.iter_mut().skip(2).zip(upstream) {
            *place = *octet;
        }
        whole[2] |= 0x80;
        whole[4..6].copy_from_slice(&[0, 1]);
        whole.extend_from_slice(asked);
        whole.extend_from_slice(upstream.get(10..).unwrap_or_default());
        answer = whole;
    }
    assert!(rig.answer(parked, &answer), "the reply is ready");
    let reply = rig.reply().to_vec();
    let before = records(&reply);
    let cut = Message::parse(&reply).expect("a reply parses").flags() & flags::TC != 0;

    rig.now.monotonic += Duration::from_secs(u64::from(*clock) * 4);
    let again = rig::query(0x4321, b"\x01A\x04tEst\0", RecordType::A.0, size);
    match rig.receive(&again) {
        Outcome::Asked(_) => {}
        Outcome::Silence(silence) => panic!("{silence:?}"),
        Outcome::Reply => {
            let reply = rig.reply();
            assert_eq!(reply[..2], [0x43, 0x21]);
            assert_eq!(reply[12..24], again[12..24]);
            if !cut {
                assert_eq!(records(reply), before);
            }
        }
    }
});

/// Section, owner, type and RDATA length of all records but OPT.
fn records(reply: &[u8]) -> Vec<(Section, Name, RecordType, usize)> {
    let message = Message::parse(reply).expect("a reply parses");
    assert_eq!(message.end(), reply.len());
    message
        .records()
        .filter(|record| !record.is_opt())
        .map(|record| (record.section, message.owner(&record), record.rtype, record.rdata.len()))
        .collect()
}
