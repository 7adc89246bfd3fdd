//! `loadbalance` as clients see it.

use crate::corefile::MemorySurroundings;
use crate::dns::{Class, Rcode, RecordType, Section, Writer};
use crate::plugin::Chain;
use crate::plugin::testing::{Bench, always, query};
use proptest::collection::vec;
use proptest::{prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn bench(directives: &str, files: &MemorySurroundings) -> (Bench, Chain) {
    let mut bench = Bench::new();
    let chain = bench.load(directives, files).unwrap();
    (bench, chain)
}

fn ask(bench: &mut Bench, chain: &Chain, qtype: RecordType, records: &[&str]) -> Vec<String> {
    bench.ask(chain, query("a.test.", qtype), always(Rcode::NOERROR, records)).records()
}

/// The last word of each record.
fn values(records: &[String]) -> Vec<String> {
    records.iter().map(|record| record.rsplit(' ').next().unwrap().to_owned()).collect()
}

const FOUR: &[&str] = &[
    "a.test. 300 IN A 192.0.2.1",
    "a.test. 301 IN A 192.0.2.2",
    "a.test. 302 IN A 192.0.2.3",
    "a.test. 303 IN A 192.0.2.4",
];

#[test]
fn every_address_comes_first_sometimes_and_none_is_lost() {
    let (mut bench, chain) = bench("loadbalance", &MemorySurroundings::default());
    let mut firsts = BTreeMap::new();
    for _ in 0..400 {
        let mut records = ask(&mut bench, &chain, RecordType::A, FOUR);
        *firsts.entry(records[0].clone()).or_insert(0) += 1;
        records.sort();
        assert_eq!(records, FOUR);
    }
    assert_eq!(firsts.len(), 4);
    assert!(firsts.values().all(|count| (60..140).contains(count)), "{firsts:?}");
}

#[test]
fn groups_stand_in_a_fixed_order_whatever_their_names() {
    let (mut bench, chain) = bench("loadbalance round_robin", &MemorySurroundings::default());
    let records = &[
        "a.test. 300 IN A 192.0.2.1",
        "b.a.test. 300 IN TXT x",
        "a.test. 300 IN MX 1 mx.b.a.test.",
        "a.test. 300 IN CNAME z.b.a.test.",
        "z.b.a.test. 300 IN AAAA ::1",
        "a.test. 300 IN SRV 1 1 1 z.b.a.test.",
        "authority: test. 300 IN NS ns.test.",
        "additional: ns.test. 300 IN A 192.0.2.9",
        "additional: x.test. 300 IN CNAME ns.test.",
    ];
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        seen.insert(ask(&mut bench, &chain, RecordType::ANY, records));
    }
    assert_eq!(seen.len(), 2);
    for mut found in seen {
        found[3..5].sort();
        assert_eq!(
            found,
            [
                "a.test. 300 IN CNAME z.b.a.test.",
                "b.a.test. 300 IN TXT \"x\"",
                "a.test. 300 IN SRV 1 1 1 z.b.a.test.",
                "a.test. 300 IN A 192.0.2.1",
                "z.b.a.test. 300 IN AAAA ::1",
                "a.test. 300 IN MX 1 mx.b.a.test.",
                "test. 300 IN NS ns.test.",
                "x.test. 300 IN CNAME ns.test.",
                "ns.test. 300 IN A 192.0.2.9",
            ]
        );
    }
}

#[test]
fn many_records_are_arranged_too() {
    let (mut bench, chain) = bench("loadbalance", &MemorySurroundings::default());
    let records: Vec<String> = (0..200).map(|n| format!("a.test. 300 IN A 192.0.2.{n}")).collect();
    let mut records: Vec<&str> = records.iter().map(String::as_str).collect();
    let mut found = ask(&mut bench, &chain, RecordType::A, &records);
    assert_ne!(found, records);
    found.sort();
    records.sort_unstable();
    assert_eq!(found, records);
}

#[test]
fn error_responses_and_zone_transfers_stay_as_they_are() {
    let (mut bench, chain) = bench("loadbalance", &MemorySurroundings::default());
    for _ in 0..10 {
        assert_eq!(ask(&mut bench, &chain, RecordType::AXFR, FOUR), FOUR);
        let nxdomain = always(Rcode::NXDOMAIN, FOUR);
        let outcome = bench.ask(&chain, query("a.test.", RecordType::A), nxdomain);
        assert_eq!(outcome.records(), FOUR);
    }
}

#[test]
fn preferred_networks_come_first_in_their_order() {
    let (mut bench, chain) = bench(
        "loadbalance round_robin {\n prefer 10.0.0.0/8 198.51.100.0/24\n}",
        &MemorySurroundings::default(),
    );
    let records = &[
        "a.test. 300 IN A 192.0.2.1",
        "a.test. 300 IN A 10.1.1.1",
        "a.test. 300 IN A 198.51.100.1",
        "a.test. 300 IN TXT x",
    ];
    for _ in 0..20 {
        let found = ask(&mut bench, &chain, RecordType::A, records);
        assert_eq!(values(&found), ["10.1.1.1", "198.51.100.1", "192.0.2.1", "\"x\""]);
    }
}

#[test]
fn weights_choose_the_first_address_and_follow_the_file() {
    let files = MemorySurroundings::default().with_file("w", "a.test\n192.0.2.3 8\n192.0.2.1 1\n");
    let (mut bench, chain) = bench("loadbalance weighted w", &files);
    let line = ["[INFO] plugin/loadbalance: Successfully reloaded weight file w"];
    assert_eq!(bench.journal.take(), line);
    let shares = |bench: &mut Bench| {
        let mut firsts = BTreeMap::new();
        for _ in 0..1000 {
            let found = ask(bench, &chain, RecordType::A, &FOUR[..3]);
            *firsts.entry(values(&found)[0].clone()).or_insert(0) += 1;
        }
        firsts
    };
    let before = shares(&mut bench);
    assert!((750..850).contains(&before["192.0.2.3"]), "{before:?}");
    assert!((60..140).contains(&before["192.0.2.2"]), "{before:?}");
    assert_eq!(chain[0].upkeep_every(), Some(Duration::from_secs(30)));

    files.write("w", "a.test\n192.0.2.1 255\n");
    bench.upkeep(&chain, &files);
    bench.upkeep(&chain, &files);
    assert_eq!(bench.journal.take(), line);
    assert!(shares(&mut bench)["192.0.2.1"] > 950);

    files.write("w", "nonsense here too");
    bench.upkeep(&chain, &files);
    assert_eq!(
        bench.journal.take(),
        [
            "[ERROR] plugin/loadbalance: could not parse weight line:\"nonsense here too\" in weight file w"
        ]
    );
    assert!(shares(&mut bench)["192.0.2.1"] > 950);
}

#[test]
fn a_weight_file_that_is_not_there_is_fatal_only_when_it_is_never_read_again() {
    let files = MemorySurroundings::default();
    let (bench, _) = bench("loadbalance weighted w", &files);
    assert_eq!(
        bench.journal.take(),
        [
            "[WARNING] plugin/loadbalance: Failed to open weight file:weight file open error. Will try again in 30s"
        ]
    );
    let once = "loadbalance weighted w {\n reload 0s\n}";
    assert_eq!(
        Bench::new().load_error(once, &files),
        "Corefile:4 - plugin/loadbalance: weight file open error"
    );
}

#[test]
fn preferred_networks_of_several_lines_add_up() {
    let files = MemorySurroundings::default();
    let lines = "loadbalance {\n prefer 192.0.2.3/32\n}\nloadbalance {\n prefer 192.0.2.2/32\n}";
    let (mut bench, chain) = bench(lines, &files);
    for _ in 0..20 {
        let found = ask(&mut bench, &chain, RecordType::A, &FOUR[..3]);
        assert_eq!(values(&found)[..2], ["192.0.2.3", "192.0.2.2"]);
    }
}

#[test]
fn mistakes_are_named_as_coredns_names_them() {
    const ERROR: &str = "plugin/loadbalance: Corefile:2 - Error during parsing: ";
    const BLOCK: &str = "plugin/loadbalance: Corefile:3 - Error during parsing: ";
    for (directives, place, text) in [
        ("loadbalance least", "Corefile:2 - plugin/loadbalance: ", "unknown policy: least"),
        ("loadbalance round_robin x", ERROR, "unknown property for round_robin"),
        ("loadbalance weighted", ERROR, "missing weight file argument"),
        ("loadbalance weighted a b", ERROR, "unexpected argument(s)"),
        ("loadbalance {\n foo\n}", BLOCK, "unknown property 'foo'"),
        ("loadbalance weighted w {\n prefer 10.0.0.0/8\n}", BLOCK, "unknown property 'prefer'"),
        ("loadbalance {\n prefer foo\n}", BLOCK, "invalid CIDR \"foo\": invalid CIDR address: foo"),
        ("loadbalance weighted w {\n reload\n}", BLOCK, "reload duration value is missing"),
        ("loadbalance weighted w {\n reload 5\n}", BLOCK, "invalid reload duration '5'"),
    ] {
        let error = Bench::new().load_error(directives, &MemorySurroundings::default());
        assert_eq!(error, format!("{place}{text}"));
    }
}

proptest! {
    /// Whatever an upstream sends: nothing panics, and no record is lost, added or changed.
    #[test]
    fn any_order_keeps_the_records(
        kinds in vec((0..7usize, 0..3usize, 0..3usize), 0..70),
        policy in 0..3usize,
    ) {
        const OWNERS: [&str; 3] = ["a.test.", "b.a.test.", "other.example."];
        const PLACES: [&str; 3] = ["", "authority: ", "additional: "];
        let records: Vec<String> = kinds
            .iter()
            .enumerate()
            .map(|(n, (kind, owner, place))| {
                let data = match kind {
                    0 | 1 => format!("A 192.0.2.{n}"),
                    2 => format!("AAAA 2001:db8::{:x}", n + 1),
                    3 => format!("MX {n} mx.b.a.test."),
                    4 => format!("TXT \"x{n}\""),
                    5 => format!("CNAME c{n}.b.a.test."),
                    _ => format!("SRV 1 2 {n} b.a.test."),
                };
                format!("{}{} {n} IN {data}", PLACES[*place], OWNERS[*owner])
            })
            .collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let files = MemorySurroundings::default().with_file("w", "a.test\n192.0.2.3 8\n");
        let directive = [
            "loadbalance",
            "loadbalance weighted w",
            "loadbalance {\n prefer 192.0.2.0/28 2001:db8::/32\n}",
        ][policy];
        let (mut bench, chain) = bench(directive, &files);
        let mut found = ask(&mut bench, &chain, RecordType::A, &records);
        let mut expected: Vec<String> = records
            .iter()
            .map(|record| record.rsplit_once(": ").map_or(*record, |(_, rest)| rest).to_owned())
            .collect();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn addresses_of_classes_without_such_stay_whole_however_long_they_are() {
    let (mut bench, chain) = bench("loadbalance", &MemorySurroundings::default());
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let mut found = Vec::new();
        let outcome = bench.ask(&chain, query("a.test.", RecordType::A), |query, response| {
            always(Rcode::NOERROR, &[])(query, response);
            let flags = response.flags();
            let mut writer = Writer::new(&mut response.wire, query.id(), flags);
            writer.question(query.question());
            for octet in 1..=3 {
                let (name, a) = (query.spelled_name(), RecordType::A);
                writer.raw_record(Section::Answer, name, a, Class::CH, 300, &[octet; 40]);
            }
        });
        let message = outcome.response.message().unwrap();
        for record in message.records() {
            let rdata = message.rdata(&record);
            assert_eq!(rdata, [rdata[0]; 40]);
            found.push(rdata[0]);
        }
        seen.insert(found.clone());
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3]);
    }
    assert!(seen.len() > 1);
}
