//! What is accepted as a query, in which form, and how one is changed.

use super::*;

/// Octets from hex text, spaces and `|` ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn accepted(bytes: &[u8]) -> Query<'_> {
    match Query::receive(bytes) {
        Received::Query(query) => query,
        other => panic!("{other:?}"),
    }
}

const QUESTION: &str = "01 61 04 54 65 73 74 00 0001 0001";
const OPT: &str = "00 0029 0578 00 00 8000 0000";

#[test]
fn an_option_is_replaced_or_added() {
    let opt = "00 0029 0578 00 00 8000 000d | 0003 0001 ff | 000a 0004 61626364";
    let bytes = hex(&format!("0001 0100 0001 0000 0000 0001 {QUESTION} {opt}"));
    let mut query = accepted(&bytes);
    query.set_option(3, b"node");
    let opt = "00 0029 0578 00 00 8000 0010 | 0003 0004 6e6f6465 | 000a 0004 61626364";
    assert_eq!(query.wire(), hex(&format!("0001 0100 0001 0000 0000 0001 {QUESTION} {opt}")));
    let edns = query.edns().unwrap();
    let options: Vec<_> = edns.each_option(query.wire()).collect();
    assert_eq!(options, [(3, &b"node"[..]), (10, b"abcd")]);
    query.set_option(11, b"");
    let edns = query.edns().unwrap();
    assert_eq!(edns.each_option(query.wire()).last(), Some((11, &b""[..])));
    query.set_option(12, &[0; 65535]);
    assert_eq!(query.edns().unwrap().each_option(query.wire()).count(), 3);
}

#[test]
fn flags_can_be_replaced_but_not_what_makes_it_a_query() {
    let bytes = hex(&format!("0001 2100 0001 0000 0000 0000 {QUESTION}"));
    let mut query = accepted(&bytes);
    query.set_flags(!flags::RD);
    assert_eq!(query.flags(), 0x2000 | flags::AA | flags::TC | flags::RA | 0x70);
}

#[test]
fn what_cannot_be_a_query_is_classified_by_its_header() {
    // Text of the message; the reaction: rcode, flag word without rcode, question echoed.
    type Reaction = Option<(Rcode, u16, bool)>;
    let table: &[(&str, &str, Reaction)] = &[
        ("eleven octets", "0001 0100 0001 0000 0000 00", None),
        ("a response", "0001 8100 0001 0000 0000 0000", None),
        ("a cut response", "0001 8100 0001", None),
        ("IQUERY", "0001 09ff 0001 0000 0000 0000", Some((Rcode::NOTIMP, 0x89b0, false))),
        ("UPDATE", "0001 2c40 0001 0000 0000 0000", Some((Rcode::NOTIMP, 0xa800, false))),
        ("no question", "0001 0100 0000 0000 0000 0000", Some((Rcode::FORMERR, 0x8100, false))),
        (
            "two questions",
            "0001 0100 0002 0000 0000 0000 00 0001 0001 00 0001 0001",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        (
            "two answers",
            "0001 0100 0001 0002 0000 0000 00 0001 0001",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        (
            "two authorities",
            "0001 0100 0001 0000 0002 0000 00 0001 0001",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        (
            "three additional",
            "0001 0100 0001 0000 0000 0003 00 0001 0001",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        (
            "a NOTIFY that does not parse",
            "0001 2100 0001 0000 0000 0000 01",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        ("header only", "0001 0130 0001 0000 0000 0000", Some((Rcode::SERVFAIL, 0x8110, false))),
        (
            "header only, NOTIFY",
            "0001 2100 0001 0000 0000 0000",
            Some((Rcode::SERVFAIL, 0xa000, false)),
        ),
        (
            "one octet of the type",
            "0001 0100 0001 0000 0000 0000 00 00",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        (
            "one octet of the class",
            "0001 0100 0001 0000 0000 0000 00 0001 00",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        (
            "a label type of 01",
            "0001 0100 0001 0000 0000 0000 41 00 0001 0001",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        (
            "a forward pointer",
            "0001 0100 0001 0000 0000 0000 c00e 00 0001 0001",
            Some((Rcode::FORMERR, 0x8100, false)),
        ),
        (
            "a cut OPT",
            "0001 0100 0001 0000 0000 0001 00 0001 0001 00 0029 0578 00",
            Some((Rcode::FORMERR, 0x8100, true)),
        ),
        (
            "an option that overruns",
            "0001 0100 0001 0000 0000 0001 00 0001 0001 00 0029 0578 00000000 0005 000a 0020 61",
            Some((Rcode::FORMERR, 0x8100, true)),
        ),
        (
            "OPT RDATA of one octet",
            "0001 0100 0001 0000 0000 0001 00 0001 0001 00 0029 0578 00000000 0001 00",
            Some((Rcode::FORMERR, 0x8100, true)),
        ),
    ];
    for (what, message, reaction) in table {
        let bytes = hex(message);
        match (Query::receive(&bytes), reaction) {
            (Received::Ignore, None) => {}
            (Received::Reject(reject), Some((rcode, flags, question))) => {
                assert_eq!(reject.rcode, *rcode, "{what}");
                assert_eq!(reject.flags, *flags, "{what}: {:04x}", reject.flags);
                // The root's question.
                assert_eq!(reject.question, question.then_some(12..17), "{what}");
            }
            (other, _) => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_usual_query_is_borrowed() {
    for (additional, tail) in [("0000", ""), ("0001", OPT)] {
        let bytes = hex(&format!("1234 0120 0001 0000 0000 {additional} {QUESTION} {tail}"));
        let query = accepted(&bytes);
        assert!(matches!(query.wire, Cow::Borrowed(_)));
        assert_eq!(query.id(), 0x1234);
        assert_eq!(query.name().to_string(), "a.test.");
        assert_eq!(query.spelled_name(), b"\x01a\x04Test\0");
        assert_eq!((query.qtype(), query.qclass()), (RecordType::A, Class::IN));
        assert_eq!(query.received_size(), bytes.len());
        assert_eq!(query.wants_dnssec(), !tail.is_empty());
    }
}

#[test]
fn lenient_forms_are_accepted_and_brought_into_normal_form() {
    let root = "00 0001 0001";
    let record = "00 0010 0001 00000001 0002 0161";
    let tsig = "00 00fa 00ff 00000000 0003 000000";
    let table: &[(&str, String, String)] = &[
        (
            "a question cut behind the name",
            "0001 0100 0001 0000 0000 0000 0161 00".into(),
            "0001 0100 0001 0000 0000 0000 0161 00 0000 0000".into(),
        ),
        (
            "a question cut behind the type",
            "0001 0100 0001 0001 0000 0001 00 000f".into(),
            "0001 0100 0001 0000 0000 0000 00 000f 0000".into(),
        ),
        (
            "counts that promise too much",
            format!("0001 0100 0001 0001 0001 0002 {root}"),
            format!("0001 0100 0001 0000 0000 0000 {root}"),
        ),
        (
            "an answer that is promised alone",
            format!("0001 0100 0001 0001 0000 0000 {root}"),
            format!("0001 0100 0001 0000 0000 0000 {root}"),
        ),
        (
            "an authority that is promised alone",
            format!("0001 0100 0001 0000 0001 0000 {root}"),
            format!("0001 0100 0001 0000 0000 0000 {root}"),
        ),
        (
            "an additional record that is promised alone",
            format!("0001 0100 0001 0000 0000 0001 {root}"),
            format!("0001 0100 0001 0000 0000 0000 {root}"),
        ),
        (
            "one record of two",
            format!("0001 0100 0001 0000 0000 0002 {root} {OPT}"),
            format!("0001 0100 0001 0000 0000 0001 {root} {OPT}"),
        ),
        (
            "octets behind the end",
            format!("0001 0100 0001 0000 0000 0000 {root} aaaaaa"),
            format!("0001 0100 0001 0000 0000 0000 {root}"),
        ),
        (
            "octets behind the OPT",
            format!("0001 0100 0001 0000 0000 0001 {root} {OPT} aa"),
            format!("0001 0100 0001 0000 0000 0001 {root} {OPT}"),
        ),
        (
            "a pointer into the header",
            "0001 0100 0001 0000 0000 0000 0161 c006 0001 0001".into(),
            "0001 0100 0001 0000 0000 0000 0161 00 0001 0001".into(),
        ),
        (
            "an rcode",
            format!("0001 0103 0001 0000 0000 0000 {root}"),
            format!("0001 0100 0001 0000 0000 0000 {root}"),
        ),
        (
            "an answer record",
            format!("0001 0100 0001 0001 0000 0000 {root} {record}"),
            format!("0001 0100 0001 0001 0000 0000 {root} {record}"),
        ),
        (
            "an owner that is a pointer",
            "0001 0100 0001 0001 0000 0000 0161 00 0001 0001 c00c 0005 0001 00000001 0002 c00c"
                .into(),
            "0001 0100 0001 0001 0000 0000 0161 00 0001 0001 016100 0005 0001 00000001 0003 016100"
                .into(),
        ),
        (
            "a TSIG",
            format!("0001 0100 0001 0000 0000 0001 {root} {tsig}"),
            format!("0001 0100 0001 0000 0000 0000 {root}"),
        ),
        (
            "two OPTs",
            format!("0001 0100 0001 0000 0000 0002 {root} 00 0029 1000 00000000 0000 {OPT}"),
            format!("0001 0100 0001 0000 0000 0001 {root} {OPT}"),
        ),
        (
            "an OPT not owned by the root",
            format!("0001 0100 0001 0000 0000 0001 {root} 0178{OPT}"),
            format!("0001 0100 0001 0000 0000 0001 {root} {OPT}"),
        ),
        (
            "an OPT among the answers",
            format!("0001 0100 0001 0001 0000 0000 {root} {OPT}"),
            format!("0001 0100 0001 0000 0000 0000 {root}"),
        ),
    ];
    for (what, message, normal) in table {
        let bytes = hex(message);
        let query = accepted(&bytes);
        assert_eq!(query.wire(), hex(normal), "{what}");
        let again = query.wire().to_vec();
        let again = accepted(&again);
        assert_eq!(again.wire(), query.wire(), "{what}");
        assert_eq!(again.edns(), query.edns(), "{what}");
        assert_eq!(again.question(), query.question(), "{what}");
        assert_eq!(query.received_size(), query.wire().len(), "{what}");
    }
}

#[test]
fn the_last_opt_wins() {
    let bytes = hex(&format!(
        "0001 0100 0001 0000 0000 0002 00 0001 0001 {OPT} 00 0029 0258 00000000 0004 0003 0000"
    ));
    let query = accepted(&bytes);
    let edns = query.edns().unwrap();
    assert_eq!((edns.udp_size, edns.flags), (600, 0));
    assert_eq!(edns.each_option(query.wire()).collect::<Vec<_>>(), [(3, &[][..])]);
}

#[test]
fn a_changed_question_keeps_the_records_behind_it() {
    let bytes = hex(&format!(
        "0001 0100 0001 0000 0000 0001 {QUESTION} 00 0029 0578 00 00 8000 0007 000a 0003 313233"
    ));
    for name in [&b"\0"[..], b"\x03Abc\x02de\0"] {
        let mut query = accepted(&bytes);
        query.set_question(name, RecordType::AAAA, Class::CH);
        query.set_udp_size(1100);
        let wire = query.wire().to_vec();
        let again = accepted(&wire);
        assert_eq!(again.spelled_name(), name);
        assert_eq!(again.name(), query.name());
        assert_eq!((again.qtype(), again.qclass()), (RecordType::AAAA, Class::CH));
        assert_eq!((query.qtype(), query.qclass()), (RecordType::AAAA, Class::CH));
        assert_eq!(again.edns(), query.edns());
        assert_eq!(again.edns().unwrap().udp_size, 1100);
        assert_eq!(query.received_size(), bytes.len());
    }
}

#[test]
fn a_replaced_message_must_be_a_query() {
    let bytes = hex(&format!("0001 0100 0001 0000 0000 0000 {QUESTION}"));
    let mut query = accepted(&bytes);
    assert!(query.replace(hex("0001 8100 0001 0000 0000 0000 00 0001 0001")).is_err());
    assert_eq!(query.wire(), bytes);
    query.replace(hex("0001 0100 0001 0000 0000 0000 00 0001 0001")).unwrap();
    assert_eq!(query.name(), &Name::root());
    assert_eq!(query.received_size(), bytes.len());
}
