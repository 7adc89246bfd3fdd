//! What `acl` does to whom.

use super::*;
use crate::corefile::MemorySurroundings;
use crate::dns::{Received, Written};
use crate::plugin::testing::{Bench, Outcome, always, query};

const ANSWER: &[&str] = &["a.test. 60 IN A 192.0.2.1"];

/// What a client at `address` gets to hear under `rules`.
fn ask(bench: &mut Bench, rules: &str, address: &str, name: &str, qtype: RecordType) -> Outcome {
    let chain = bench.load(rules, &MemorySurroundings::new()).unwrap();
    bench.client.address.set_ip(address.parse().unwrap());
    bench.ask(&chain, query(name, qtype), always(Rcode::NOERROR, ANSWER))
}

fn said(outcome: &Outcome) -> &'static str {
    let response = &outcome.response;
    match (outcome.dropped, response.rcode) {
        (Some(DropReason::Policy), _) => "drop",
        (None, Rcode::REFUSED) if response.written == Written::Message => "block",
        (None, Rcode::NOERROR) if outcome.records().is_empty() => "filter",
        (None, Rcode::NOERROR) => "allow",
        other => panic!("{other:?}"),
    }
}

fn verdict(rules: &str, address: &str, name: &str, qtype: RecordType) -> &'static str {
    said(&ask(&mut Bench::new(), rules, address, name, qtype))
}

#[test]
fn a_rule_chooses_by_address() {
    let rules = "acl {\n allow net 192.168.1.0/24\n block net 192.168.0.0/16 2001:db8::/32\n \
                 drop net 10.0.0.1\n filter net 2001:db9::7 *\n}";
    for (address, expected) in [
        ("192.168.1.9", "allow"),
        ("192.168.0.255", "block"),
        ("192.168.255.255", "block"),
        ("::ffff:192.168.2.1", "block"),
        ("2001:db8:ffff::1", "block"),
        ("10.0.0.1", "drop"),
        ("10.0.0.2", "filter"),
        ("::1", "filter"),
    ] {
        assert_eq!(verdict(rules, address, "a.test.", RecordType::A), expected, "{address}");
    }
}

#[test]
fn a_rule_chooses_by_type_and_both_must_fit() {
    let rules = "acl {\n BLOCK type A AAAA net 10.0.0.0/8\n filter type TXT\n \
                 drop type MX * NOSUCH net 10.9.0.0/16\n}";
    for (address, qtype, expected) in [
        ("10.1.1.1", RecordType::A, "block"),
        ("11.1.1.1", RecordType::A, "allow"),
        ("11.1.1.1", RecordType::TXT, "filter"),
        ("10.1.1.1", RecordType::SRV, "allow"),
        ("10.9.1.1", RecordType::SRV, "drop"),
    ] {
        assert_eq!(verdict(rules, address, "a.test.", qtype), expected, "{address} {qtype}");
    }
}

#[test]
fn rules_are_for_zones_and_the_first_verdict_counts() {
    let rules = "acl a.test {\n block net 10.0.0.0/8\n}\nacl {\n allow net 10.1.0.0/16\n drop\n}\n\
                 acl {\n block\n}";
    for (address, name, expected) in [
        ("10.1.0.1", "x.a.test.", "block"),
        ("10.1.0.1", "b.test.", "allow"),
        ("10.2.0.1", "b.test.", "drop"),
        ("11.2.0.1", "a.test.", "drop"),
    ] {
        assert_eq!(verdict(rules, address, name, RecordType::A), expected, "{address} {name}");
    }
    assert_eq!(verdict("acl", "10.0.0.1", "a.test.", RecordType::A), "allow");
}

#[test]
fn overlapping_networks_are_one_range() {
    let networks: Vec<Network> = ["10.0.0.0/9", "10.5.0.0/16", "10.128.0.0/9", "::/0", "fe80::/10"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let Sources::Some { v4, v6 } = Sources::of(&networks) else { panic!("not all") };
    assert_eq!(v4, [(0x0a00_0000, 0x0a7f_ffff), (0x0a80_0000, 0x0aff_ffff)]);
    assert_eq!(v6, [(0, u128::MAX)]);
    let whole = Sources::of(&["0.0.0.0/0".parse().unwrap()]);
    assert!(whole.contain("255.255.255.255".parse().unwrap()));
    assert!(!whole.contain("::1".parse().unwrap()));
}

#[test]
fn a_client_with_edns_hears_why() {
    let with_opt =
        b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x01a\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";
    for (action, why) in [("block", 15), ("filter", 17)] {
        let mut bench = Bench::new();
        let chain =
            bench.load(&format!("acl {{\n {action}\n}}"), &MemorySurroundings::new()).unwrap();
        let Received::Query(query) = Query::receive(with_opt) else { panic!("a query") };
        let outcome = bench.ask(&chain, query, |_, _| panic!("nobody is asked"));
        let edns = outcome.response.message().unwrap().edns().unwrap();
        assert_eq!(edns.udp_size, 1232);
        assert_eq!(outcome.response.wire[edns.options], [0, 15, 0, 2, 0, why]);
        let plain = ask(&mut bench, &format!("acl {{\n {action}\n}}"), "::1", "a.", RecordType::A);
        assert!(plain.response.message().unwrap().edns().is_none());
    }
}

#[test]
fn verdicts_are_counted_by_server_and_zone() {
    let mut bench = Bench::new();
    let rules = "acl a.test test {\n block type A\n filter type MX\n drop type TXT\n}";
    for (name, qtype) in [
        ("x.a.test.", RecordType::A),
        ("b.test.", RecordType::MX),
        ("b.test.", RecordType::TXT),
        ("b.test.", RecordType::NS),
        ("other.", RecordType::A),
    ] {
        ask(&mut bench, rules, "10.0.0.1", name, qtype);
    }
    let server = bench.server.label.to_string();
    let count = |desc, zone: &str| bench.metrics.counter(desc, &[&server, zone, ""]).value();
    assert_eq!(count(&names::ACL_BLOCKED, "a.test."), 1);
    assert_eq!(count(&names::ACL_FILTERED, "test."), 1);
    assert_eq!(count(&names::ACL_DROPPED, "test."), 1);
    assert_eq!(bench.metrics.counter(&names::ACL_ALLOWED, &[&server, ""]).value(), 2);
}

#[test]
fn a_dropped_query_is_logged() {
    let mut bench = Bench::new();
    let rules = "log . \"{name} {rcode} {rsize}\"\nacl {\n drop\n}";
    assert_eq!(said(&ask(&mut bench, rules, "10.0.0.1", "a.test.", RecordType::A)), "drop");
    assert_eq!(bench.journal.take(), ["[INFO] a.test. - 0"]);
}

#[test]
fn mistakes_are_told_in_corednss_words() {
    for (text, error) in [
        ("deny", "unexpected token \"deny\"; expect 'allow', 'block', 'filter' or 'drop'"),
        ("block 10.0.0.0/8", "unexpected token \"10.0.0.0/8\"; expect 'type | net'"),
        ("block Type", "no token specified in \"type\" section"),
        ("block type net ::1", "no token specified in \"type\" section"),
        ("block type a", "unexpected token \"a\"; expect legal QTYPE"),
        ("block net 10.0.0.0/33", "illegal CIDR notation \"10.0.0.0/33\""),
        ("block net 10.0.0", "illegal CIDR notation \"10.0.0/32\""),
        ("block net ::g", "illegal CIDR notation \"::g/128\""),
    ] {
        let text = format!("acl {{\n {text}\n}}");
        let found = Bench::new().load_error(&text, &MemorySurroundings::new());
        let place = "plugin/acl: Corefile:3 - Error during parsing: ";
        assert_eq!(found, format!("{place}{error}"));
    }
}
