//! `rewrite` as a client and an upstream see it.

use super::options;
use crate::corefile::MemorySurroundings;
use crate::dns::{Class, Query, Rcode, RecordType};
use crate::plugin::testing::{Bench, Outcome, always, name, nobody, query, respond};

/// Asks `asked` through `rules`; the upstream answers what it is asked with one A record.
fn ask(rules: &str, asked: Query<'_>) -> (Outcome, Vec<String>) {
    let mut bench = Bench::new();
    let chain = bench.load(rules, &MemorySurroundings::new()).unwrap();
    let mut seen = Vec::new();
    let outcome = bench.ask(&chain, asked, |query, response| {
        seen.push(format!("{} {} {}", query.name(), query.qclass(), query.qtype()));
        let record = format!("{} 20 IN A 192.0.2.1", query.name());
        respond(query, response, Rcode::NOERROR, &[&record]);
    });
    (outcome, seen)
}

#[test]
fn the_upstream_sees_the_new_question_and_the_client_its_own() {
    for (rules, qname, seen, owner) in [
        ("rewrite name a.test b.test", "a.test.", "b.test. IN A", "a.test."),
        ("rewrite name a.test b.test", "x.a.test.", "x.a.test. IN A", "x.a.test."),
        ("rewrite name prefix old- new-", "old-x.test.", "old-x.test. IN A", "old-x.test."),
        (
            "rewrite name suffix .from.test .to.test answer auto",
            "a.from.test.",
            "a.to.test. IN A",
            "a.from.test.",
        ),
        (
            "rewrite name suffix .from.test .to.test",
            "a.from.test.",
            "a.to.test. IN A",
            "a.to.test.",
        ),
        (
            "rewrite name regex (.*)\\.x\\.test {1}.y.test answer auto",
            "a.x.test.",
            "a.y.test. IN A",
            "a.x.test.",
        ),
        (
            "rewrite stop {\n name regex (.*)-(us)\\.test {1}.svc.{2}.consul\n\
             answer name (.*)\\.svc\\.(us)\\.consul {1}-{2}.test\n}",
            "ftp-us.test.",
            "ftp.svc.us.consul. IN A",
            "ftp-us.test.",
        ),
        ("rewrite type A AAAA", "a.test.", "a.test. IN AAAA", "a.test."),
        ("rewrite class IN CH", "a.test.", "a.test. CH A", "a.test."),
        (
            "rewrite continue name a.test b.test\nrewrite stop name b.test c.test\n\
             rewrite name c.test d.test",
            "a.test.",
            "c.test. IN A",
            "a.test.",
        ),
        ("rewrite continue name regex ^a\\.test\\.$ b.test", "a.test.", "b.test. IN A", "b.test."),
    ] {
        let (outcome, upstream) = ask(rules, query(qname, RecordType::A));
        assert_eq!(upstream, [seen], "{rules}");
        assert_eq!(outcome.records(), [format!("{owner} 20 IN A 192.0.2.1")], "{rules}");
        let message = outcome.response.message().unwrap();
        let question = message.question().unwrap();
        assert_eq!(question, (name(qname), RecordType::A, Class::IN), "{rules}");
        assert_eq!(outcome.query.name(), &name(qname), "{rules}");
    }
}

#[test]
fn names_in_records_are_turned_back_too() {
    let mut bench = Bench::new();
    let rules = "rewrite name a.test b.test";
    let chain = bench.load(rules, &MemorySurroundings::new()).unwrap();
    let outcome = bench.ask(
        &chain,
        query("a.test.", RecordType::ANY),
        always(
            Rcode::NOERROR,
            &[
                "b.test. 20 IN CNAME x.b.test.",
                "x.b.test. 20 IN SRV 1 2 3 b.test.",
                "b.test. 20 IN MX 5 mail.b.test.",
                "b.test. 20 IN TXT b.test.",
                "authority: b.test. 20 IN SOA ns.b.test. hm.b.test. 1 2 3 4 5",
                "additional: c.test. 20 IN PTR b.test.",
            ],
        ),
    );
    assert_eq!(
        outcome.records(),
        [
            "a.test. 20 IN CNAME x.a.test.",
            "x.a.test. 20 IN SRV 1 2 3 a.test.",
            "a.test. 20 IN MX 5 mail.a.test.",
            "a.test. 20 IN TXT \"b.test.\"",
            "a.test. 20 IN SOA ns.a.test. hm.b.test. 1 2 3 4 5",
            "c.test. 20 IN PTR a.test.",
        ]
    );
}

#[test]
fn a_failure_below_keeps_its_error_and_gets_the_question_back() {
    let mut bench = Bench::new();
    let rules = "rewrite name a.test b.test";
    let chain = bench.load(rules, &MemorySurroundings::new()).unwrap();
    let outcome = bench.ask(&chain, query("a.test.", RecordType::A), |_, response| {
        response.fail(Rcode::SERVFAIL, Some("no upstream".into()));
    });
    assert_eq!(outcome.response.rcode, Rcode::SERVFAIL);
    assert_eq!(outcome.response.error.as_deref(), Some("no upstream"));
    assert_eq!(outcome.query.name(), &name("a.test."));
}

#[test]
fn an_invalid_name_is_not_asked_for() {
    let mut bench = Bench::new();
    let rules = "rewrite continue name a.bad.test b.bad.test\n\
                 rewrite name regex (.*)\\.bad\\.test {1}..x";
    let chain = bench.load(rules, &MemorySurroundings::new()).unwrap();
    let outcome = bench.ask(&chain, query("a.bad.test.", RecordType::A), nobody);
    assert_eq!(outcome.response.rcode, Rcode::SERVFAIL);
    assert_eq!(outcome.response.error.as_deref(), Some("invalid name after rewrite: b..x."));
    assert_eq!(outcome.query.name(), &name("a.bad.test."));
}

#[test]
fn ttls_are_held_within_bounds() {
    for (rule, ttl, new) in [
        ("ttl a.test 5", 1000, 5),
        ("ttl suffix .test 30-300", 2, 30),
        ("ttl prefix a -50", 1000, 50),
        ("ttl prefix a 60-", 2, 60),
        ("ttl b.test 5", 1000, 1000),
    ] {
        let mut bench = Bench::new();
        let chain = bench.load(&format!("rewrite {rule}"), &MemorySurroundings::new()).unwrap();
        let record = format!("a.test. {ttl} IN A 192.0.2.1");
        let asked = query("a.test.", RecordType::A);
        let outcome = bench.ask(&chain, asked, always(Rcode::NOERROR, &[&record]));
        assert_eq!(outcome.records(), [format!("a.test. {new} IN A 192.0.2.1")], "{rule}");
    }
}

#[test]
fn an_rcode_is_rewritten_where_there_are_records() {
    const SOA: &str = "authority: test. 60 IN SOA ns.test. hm.test. 1 2 3 4 5";
    for (rule, records, rcode) in [
        ("rcode a.test NXDOMAIN NOERROR", &[SOA][..], Rcode::NOERROR),
        ("rcode a.test NXDOMAIN NOERROR", &[], Rcode::NXDOMAIN),
        ("rcode a.test SERVFAIL NOERROR", &[SOA], Rcode::NXDOMAIN),
        ("rcode suffix test 3 refused", &[SOA], Rcode::REFUSED),
    ] {
        let mut bench = Bench::new();
        let chain = bench.load(&format!("rewrite {rule}"), &MemorySurroundings::new()).unwrap();
        let asked = query("a.test.", RecordType::A);
        let outcome = bench.ask(&chain, asked, always(Rcode::NXDOMAIN, records));
        assert_eq!(outcome.response.rcode, rcode, "{rule}");
        assert_eq!(outcome.response.flags() & 0xf, rcode.0, "{rule}");
    }
}

#[test]
fn a_cname_target_is_exchanged_and_asked_for() {
    let mut bench = Bench::new();
    // Two names mean `exact`.
    let rules = "rewrite cname old.test. new.test.";
    let chain = bench.load(rules, &MemorySurroundings::new()).unwrap();
    let outcome = bench.ask(&chain, query("c.test.", RecordType::A), |query, response| {
        let records: &[&str] = match query.name() == &name("c.test.") {
            true => &["c.test. 20 IN CNAME old.test.", "old.test. 20 IN A 192.0.2.9"],
            false => &["new.test. 20 IN A 192.0.2.1"],
        };
        respond(query, response, Rcode::NOERROR, records);
    });
    assert_eq!(outcome.records(), ["c.test. 20 IN CNAME new.test.", "new.test. 20 IN A 192.0.2.1"]);
    assert_eq!(outcome.further.len(), 1);

    let outcome = bench.ask(
        &chain,
        query("d.test.", RecordType::A),
        always(Rcode::NOERROR, &["d.test. 20 IN A 192.0.2.1"]),
    );
    assert_eq!(outcome.records(), ["d.test. 20 IN A 192.0.2.1"]);
}

#[test]
fn a_cname_rule_keeps_what_did_not_match_of_the_target() {
    for (rule, target) in [
        ("prefix old. new.", "new.a.test."),
        ("suffix .a.test. .b.test.", "old.b.test."),
        ("suffix .a.test. .b.test", "old.b.test."),
        ("substring a.test b.test", "old.b.test."),
        ("regex ^old[.](.*)$ n.{1}", "n.a.test."),
        ("regex (.*)[.]a[.]test[.] {1}.cdn.test", "old.cdn.test."),
    ] {
        let mut bench = Bench::new();
        let rules = format!("rewrite cname {rule}");
        let chain = bench.load(&rules, &MemorySurroundings::new()).unwrap();
        let outcome = bench.ask(&chain, query("c.test.", RecordType::A), |query, response| {
            let records: &[&str] = match query.name() == &name("c.test.") {
                true => &["c.test. 20 IN CNAME old.a.test."],
                false => &[],
            };
            respond(query, response, Rcode::NOERROR, records);
        });
        assert_eq!(outcome.records(), [format!("c.test. 20 IN CNAME {target}")], "{rule}");
    }
}

#[test]
fn edns_options_reach_the_upstream() {
    // EDNS with 1400 octets and option 65518 "zz".
    let mut with_edns = query("b.test.", RecordType::A).wire().to_vec();
    with_edns[11] = 1;
    with_edns.extend_from_slice(b"\0\0\x29\x05\x78\0\0\0\0\0\x06\xff\xee\0\x02zz");
    for (rule, has_edns, options) in [
        ("local set 0xffee 0x61626364", false, &b"\xff\xee\0\x04abcd"[..]),
        ("local set 0xffee 0x61626364", true, b"\xff\xee\0\x04abcd"),
        ("local replace 0xffee abcd", false, b""),
        ("local append 0xffee {qname}", true, b"\xff\xee\0\x02zz"),
        ("local unset 0xffee", true, b""),
        ("nsid set", false, b"\0\x03\0\0"),
        ("subnet set 24 56", false, b"\0\x08\0\x07\0\x01\x18\0\x7f\0\0"),
        ("local set 1 {client_port}", false, b"\0\x01\0\x02\x9d\x14"),
        ("local set 1 {protocol}", false, b"\0\x01\0\x03udp"),
        ("local set 1 {qtype}", false, b"\0\x01\0\x02\0\x01"),
        ("local set 1 {server_ip}", false, b"\0\x01\0\x04\x7f\0\0\x35"),
    ] {
        let mut bench = Bench::new();
        let rules = format!("rewrite edns0 {rule}");
        let chain = bench.load(&rules, &MemorySurroundings::new()).unwrap();
        let mut asked = query("b.test.", RecordType::A);
        if has_edns {
            asked.replace(with_edns.clone()).unwrap();
        }
        let outcome = bench.ask(&chain, asked, |query, response| {
            let edns = query.edns().unwrap();
            assert_eq!(edns.udp_size, if has_edns { 1400 } else { 4096 }, "{rule}");
            assert_eq!(&query.wire()[edns.options.clone()], options, "{rule}");
            respond(query, response, Rcode::NOERROR, &["b.test. 20 IN A 192.0.2.1"]);
        });
        assert_eq!(outcome.records().len(), 1);
    }
}

#[test]
fn a_wrong_rule_names_its_place() {
    let error = Bench::new().load_error("rewrite foo a b", &MemorySurroundings::new());
    assert!(error.contains("Corefile:2"), "{error}");
    assert!(error.contains("plugin/rewrite: invalid rule type \"foo\""), "{error}");
}

/// What clients and upstream see of an option that `rules` give a query without EDNS: the query's
/// options above `rewrite` once it is answered, and those that the upstream saw.
fn options_above_and_below(rules: &str) -> (Option<Vec<u16>>, Option<Vec<u16>>) {
    let codes = |query: &Query<'_>| {
        let edns = query.edns()?;
        Some(edns.each_option(query.wire()).map(|(code, _)| code).collect())
    };
    let mut bench = Bench::new();
    let chain = bench.load(rules, &MemorySurroundings::new()).unwrap();
    let mut below = None;
    let outcome = bench.ask(&chain, query("a.test.", RecordType::A), |query, response| {
        below = codes(query);
        respond(query, response, Rcode::NOERROR, &["a.test. 20 IN A 192.0.2.1"]);
    });
    (codes(&outcome.query), below)
}

#[test]
fn a_client_sees_a_new_option_only_where_no_cache_stands_above() {
    let rule = "rewrite edns0 local set 65001 x";
    let seen = Some(vec![65001]);
    assert_eq!(options_above_and_below(rule), (seen.clone(), seen.clone()));
    assert_eq!(options_above_and_below(&format!("cache\n{rule}")), (None, seen));
    // The OPT record of a rule that finds nothing to replace.
    let rule = "cache\nrewrite edns0 local replace 65001 x";
    assert_eq!(options_above_and_below(rule), (None, Some(Vec::new())));
}

#[test]
fn an_option_that_is_reverted_is_gone_from_the_query_once_it_is_answered() {
    let rule = "rewrite edns0 local set 65001 x revert";
    assert_eq!(options_above_and_below(rule), (Some(Vec::new()), Some(vec![65001])));
    let own = vec![(65001, b"own".to_vec())];
    for (action, below) in [("set", vec!["x"]), ("append", vec!["own", "x"])] {
        let mut bench = Bench::new();
        let rule = format!("rewrite edns0 local {action} 65001 x revert");
        let chain = bench.load(&rule, &MemorySurroundings::new()).unwrap();
        let mut asked = query("a.test.", RecordType::A);
        options::set(&mut asked, &own).unwrap();
        let outcome = bench.ask(&chain, asked, |query, response| {
            let seen: Vec<_> = options::of_query(query).into_iter().map(|(_, data)| data).collect();
            assert_eq!(seen, below.iter().map(|data| data.as_bytes()).collect::<Vec<_>>());
            response.fail(Rcode::SERVFAIL, None);
        });
        assert_eq!(options::of_query(&outcome.query), own, "{action}");
    }
}

#[test]
fn an_option_that_is_not_there_counts_as_unset() {
    let rules = "rewrite edns0 nsid unset\nrewrite name a.test b.test";
    let (_, upstream) = ask(rules, query("a.test.", RecordType::A));
    assert_eq!(upstream, ["a.test. IN A"]);
}
