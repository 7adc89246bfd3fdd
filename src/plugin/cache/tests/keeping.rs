//! What is kept, for how long, for which queries, and what a hit looks like.

use super::{A, A_TEST, Cached, SOA, raw_query, ttls, with_flags};
use crate::dns::{Class, Query, Rcode, RecordType, Written, flags};
use crate::plugin::testing::{always, name, nobody, query, respond};

#[test]
fn ttls_are_flattened_at_once_and_count_down() {
    let mut cached = Cached::new("cache 30");
    let records = [
        "m.test. 100 IN CNAME n.test.",
        "n.test. 12 IN A 192.0.2.1",
        "authority: test. 15 IN NS x.test.",
        "additional: x.test. 17 IN A 192.0.2.2",
    ];
    let first = cached.miss("m.test.", Rcode::NOERROR, &records);
    assert_eq!(ttls(&first), [12; 4]);
    cached.wait(2.5);
    let second = cached.hit("m.test.");
    assert_eq!(
        second.records(),
        [
            "m.test. 10 IN CNAME n.test.",
            "n.test. 10 IN A 192.0.2.1",
            "test. 10 IN NS x.test.",
            "x.test. 10 IN A 192.0.2.2"
        ]
    );
    assert_eq!(second.response.writer, "cache");
    assert_eq!(second.response.known_size, first.response.uncompressed_size());
    cached.wait(9.4);
    assert_eq!(ttls(&cached.hit("m.test.")), [1; 4]);
}

#[test]
fn an_expired_entry_is_not_served() {
    let mut cached = Cached::new("cache 30");
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 7 IN A 192.0.2.1"]);
    cached.wait(6.99);
    cached.hit("a.test.");
    cached.wait(0.01);
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 7 IN A 192.0.2.2"]);
}

/// The options, the response, its TTLs on the way through, whether it is kept.
#[test]
fn every_kind_has_its_ttl_and_its_store() {
    let ok = Rcode::NOERROR;
    let a = |ttl: u32| format!("a.test. {ttl} IN A 192.0.2.1");
    let soa = |ttl: u32| format!("authority: test. {ttl} IN SOA a. b. 1 2 3 4 5");
    let ns = "authority: test. 30 IN NS n.test.".to_owned();
    let expired = "a.test. 30 IN RRSIG 00010802 0000001e 3b9aca00 3b9aca00 1234 00 aabb".to_owned();
    let x = "additional: x.test. 30 IN A 192.0.2.1".to_owned();
    let cname = "a.test. 30 IN CNAME b.test.".to_owned();
    let cases: Vec<(&str, Rcode, Vec<String>, u32, bool)> = vec![
        ("cache", ok, vec![a(86400)], 3600, true),
        ("cache", ok, vec![a(0)], 5, true),
        ("cache", ok, vec![a(2)], 5, true),
        ("cache 30", ok, vec![a(0x7fff_ffff)], 30, true),
        ("cache 30", ok, vec![a(0x8000_0000)], 5, true),
        ("cache 30", ok, vec![a(0xffff_ffff)], 5, true),
        ("cache 3", ok, vec![a(300)], 3, true),
        ("cache 86400", ok, vec![a(86400)], 86400, true),
        ("cache 9999999999999", ok, vec![a(0x7fff_ffff)], 0x7fff_ffff, true),
        ("cache {\n success 9984 3600 0\n}", ok, vec![a(0)], 0, false),
        ("cache {\n success 9984 3600 7200\n}", ok, vec![a(10)], 3600, true),
        ("cache {\n success 9984 30 60\n}", ok, vec![a(10)], 30, true),
        ("cache", ok, vec![cname.clone()], 30, true),
        ("cache", ok, vec![soa(86400)], 1800, true),
        ("cache", ok, vec![soa(20)], 20, true),
        ("cache 30", Rcode::NXDOMAIN, vec![soa(86400)], 30, true),
        ("cache", Rcode::NXDOMAIN, vec![cname.clone(), soa(10)], 10, true),
        ("cache", Rcode::NXDOMAIN, vec![cname], 5, false),
        ("cache", Rcode::NXDOMAIN, vec![ns.clone()], 5, false),
        ("cache", ok, vec![ns], 5, true),
        ("cache", ok, vec![], 5, true),
        ("cache", ok, vec![x.clone()], 30, true),
        ("cache", Rcode::SERVFAIL, vec![x.clone()], 5, true),
        ("cache", Rcode::NOTIMP, vec![x.clone()], 5, true),
        ("cache {\n servfail 0\n}", Rcode::SERVFAIL, vec![x.clone()], 0, false),
        ("cache {\n servfail 500ms\n}", Rcode::SERVFAIL, vec![x.clone()], 0, false),
        ("cache {\n servfail 1500ms\n}", Rcode::SERVFAIL, vec![x.clone()], 1, true),
        ("cache", Rcode::REFUSED, vec![soa(60)], 5, false),
        ("cache", Rcode::FORMERR, vec![], 5, false),
        ("cache", Rcode::YXDOMAIN, vec![x.clone()], 5, false),
        ("cache", Rcode::BADVERS, vec![x], 5, false),
        ("cache", ok, vec![a(30), expired], 30, true),
        ("cache {\n disable success\n}", ok, vec![a(300)], 300, false),
        ("cache {\n disable success x. test.\n}", ok, vec![a(300)], 300, false),
        ("cache {\n disable success x.\n}", ok, vec![a(300)], 300, true),
        ("cache {\n disable success\n}", ok, vec![soa(60)], 60, true),
        ("cache {\n disable denial\n}", Rcode::NXDOMAIN, vec![soa(60)], 60, false),
    ];
    for (directive, rcode, records, ttl, kept) in cases {
        let mut cached = Cached::new(directive);
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let outcome = cached.ask(query("a.test.", A), |query, response| {
            respond(query, response, rcode, &records);
            // The header holds four bits of it.
            response.rcode = rcode;
        });
        let case = format!("{directive}: {rcode} {records:?}");
        assert_eq!(ttls(&outcome), vec![ttl; records.len()], "{case}");
        assert_eq!(outcome.response.rcode, rcode, "{case}");
        assert_eq!(cached.is_kept("a.test."), kept, "{case}");
    }
}

#[test]
fn a_hit_repeats_the_rcode_and_the_flags_of_upstream() {
    let mut cached = Cached::new("cache");
    cached.ask(query("a.test.", A), |query, response| {
        respond(query, response, Rcode::SERVFAIL, &[]);
        response.set_flags(response.flags() & !flags::RA);
    });
    let hit = cached.hit("a.test.");
    assert_eq!(hit.response.rcode, Rcode::SERVFAIL);
    assert_eq!(hit.response.flags(), flags::QR | flags::AA | flags::RD | 2);
    cached.wait(5.0);
    assert!(!cached.is_kept("a.test."));
}

#[test]
fn a_hit_answers_with_this_querys_bits_and_spelling() {
    let mut cached = Cached::new("cache");
    cached.ask(raw_query(flags::RD, A_TEST, Class::IN, None), with_flags(0));
    let spelled = b"\x01A\x04tEsT\0";
    let hit = cached.ask(raw_query(0, spelled, Class::IN, None), nobody);
    assert_eq!(hit.response.flags(), flags::QR | flags::AA | flags::RA);
    assert_eq!(&hit.response.wire[12..12 + spelled.len()], spelled);
    let notify = 4 << 11;
    let hit = cached.ask(raw_query(notify | flags::RD, A_TEST, Class::IN, None), nobody);
    assert_eq!(hit.response.flags(), flags::QR | notify | flags::AA | flags::RA);
}

#[test]
fn class_do_and_cd_are_part_of_the_key_and_edns_is_not() {
    let mut cached = Cached::new("cache");
    cached.ask(raw_query(flags::RD, A_TEST, Class::IN, None), with_flags(0));
    cached.ask(raw_query(flags::RD, A_TEST, Class::IN, Some(false)), nobody);
    let mut asked = 0;
    for (word, qclass, dnssec_ok) in
        [(0, Class::CH, None), (flags::CD, Class::IN, None), (0, Class::IN, Some(true))]
    {
        for _ in 0..2 {
            cached.ask(
                raw_query(flags::RD | word, A_TEST, qclass, dnssec_ok),
                |query, response| {
                    asked += 1;
                    with_flags(0)(query, response);
                },
            );
        }
    }
    assert_eq!(asked, 3);
    // None has taken another's place.
    for (word, dnssec_ok) in [(0, None), (flags::CD, None), (0, Some(true))] {
        cached.ask(raw_query(flags::RD | word, A_TEST, Class::IN, dnssec_ok), nobody);
    }
}

#[test]
fn ad_is_kept_if_the_first_client_asked_for_it_and_shown_to_those_who_do() {
    let mut cached = Cached::new("cache");
    let first = cached
        .ask(raw_query(flags::RD | flags::AD, A_TEST, Class::IN, None), with_flags(flags::AD));
    assert_eq!(first.response.flags() & flags::AD, flags::AD);
    let hit = cached.ask(raw_query(flags::RD, A_TEST, Class::IN, None), nobody);
    assert_eq!(hit.response.flags() & flags::AD, 0);
    let hit = cached.ask(raw_query(flags::RD | flags::AD, A_TEST, Class::IN, None), nobody);
    assert_eq!(hit.response.flags() & flags::AD, flags::AD);
    let wants = raw_query(flags::RD, A_TEST, Class::IN, Some(true));
    let miss = cached.ask(wants.clone(), with_flags(flags::AD));
    assert_eq!(miss.response.flags() & flags::AD, flags::AD);
    assert_eq!(cached.ask(wants, nobody).response.flags() & flags::AD, flags::AD);
}

#[test]
fn ad_is_gone_for_all_when_the_first_client_did_not_ask_for_it() {
    let mut cached = Cached::new("cache");
    let plain = cached.ask(raw_query(flags::RD, A_TEST, Class::IN, None), with_flags(flags::AD));
    assert_eq!(plain.response.flags() & flags::AD, 0);
    let hit = cached.ask(raw_query(flags::RD | flags::AD, A_TEST, Class::IN, None), nobody);
    assert_eq!(hit.response.flags() & flags::AD, 0);
}

#[test]
fn the_opt_is_taken_out_wherever_it_stands() {
    let opt = "additional: . 32768 IN OPT 000a0008 0102030405060708";
    let misplaced = ". 32768 IN OPT 000a0008 0102030405060708";
    let x = "additional: x.a.test. 30 IN CNAME y.a.test.";
    let z = "additional: z.x.a.test. 30 IN CNAME y.a.test.";
    for records in
        [vec![opt], vec![x, opt], vec![opt, x, z], vec![x, opt, z, opt], vec![misplaced, x, opt]]
    {
        let mut cached = Cached::new("cache");
        let mut all = vec!["a.test. 60 IN A 192.0.2.1"];
        all.extend(&records);
        let kept: Vec<String> = all
            .iter()
            .filter(|record| !record.contains(" OPT "))
            .map(|record| record.trim_start_matches("additional: ").replace(" 60 ", " 30 "))
            .collect();
        let ttl = if kept.len() == 1 { " 60 " } else { " 30 " };
        let kept: Vec<String> = kept.iter().map(|record| record.replace(" 30 ", ttl)).collect();
        let miss = cached.miss("a.test.", Rcode::NOERROR, &all);
        let hit = cached.hit("a.test.");
        for outcome in [miss, hit] {
            assert_eq!(outcome.records(), kept);
            let message = outcome.response.message().unwrap();
            assert!(message.records().all(|record| record.rtype != RecordType::OPT));
        }
    }
}

#[test]
fn a_truncated_response_is_passed_on_and_not_kept() {
    let mut cached = Cached::new("cache");
    let outcome = cached.ask(query("a.test.", A), with_flags(flags::TC));
    assert_eq!(outcome.response.flags() & flags::TC, flags::TC);
    assert_eq!(ttls(&outcome), [300]);
    assert!(!cached.is_kept("a.test."));
}

#[test]
fn a_signature_out_of_its_time_is_not_kept_when_dnssec_was_asked_for() {
    // Expiration, inception; the bench stands at 1700000000 = 0x6553f100.
    for (times, kept) in [
        ("6553f101 6553f0ff", true),
        ("6553f100 6553f100", true),
        ("6553f0ff 6553f000", false),
        ("6553f200 6553f101", false),
        ("00000000 00000000", false),
    ] {
        let mut cached = Cached::new("cache");
        let rrsig = format!("a.test. 30 IN RRSIG 00010802 0000001e {times} 1234 00 aabb");
        let records =
            ["a.test. 30 IN A 192.0.2.1", &rrsig, "additional: . 32768 IN OPT"].map(String::from);
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let wants = raw_query(flags::RD, A_TEST, Class::IN, Some(true));
        let first = cached.ask(wants.clone(), always(Rcode::NOERROR, &records));
        assert_eq!(ttls(&first), if kept { [30, 30] } else { [5, 5] }, "{times}");
        let mut asked = false;
        cached.ask(wants, |_, _| asked = true);
        assert_eq!(!asked, kept, "{times}");
    }
}

#[test]
fn a_response_to_another_question_is_dropped_from_the_cache_alone() {
    let mut cached = Cached::new("cache");
    let outcome = cached.ask(query("a.test.", A), |_, response| {
        let other = query("b.test.", A);
        respond(&other, response, Rcode::NOERROR, &["b.test. 300 IN A 192.0.2.1"]);
    });
    assert_eq!(outcome.records(), ["b.test. 300 IN A 192.0.2.1"]);
    assert!(!cached.is_kept("a.test."));
    assert!(!cached.is_kept("b.test."));
    assert_eq!(cached.value("coredns_cache_drops_total"), 1.0);
}

#[test]
fn an_error_made_here_is_not_kept() {
    let mut cached = Cached::new("cache");
    let outcome = cached.ask(query("a.test.", A), |_, response| {
        response.fail(Rcode::SERVFAIL, Some("i/o timeout".into()));
    });
    assert_eq!(outcome.response.written, Written::Nothing);
    assert_eq!(outcome.response.error.as_deref(), Some("i/o timeout"));
    cached.miss("a.test.", Rcode::NOERROR, &[]);
}

#[test]
fn names_outside_of_the_zones_pass_untouched() {
    let mut cached = Cached::new("cache 30 in.test 2.0.192.in-addr.arpa");
    for _ in 0..2 {
        assert_eq!(
            ttls(&cached.miss("a.out.test.", Rcode::NOERROR, &["a.out.test. 300 IN A 192.0.2.1"])),
            [300]
        );
    }
    assert!(cached.samples("coredns_cache_requests_total").is_empty());
    cached.miss("A.IN.test.", Rcode::NOERROR, &["a.in.test. 300 IN A 192.0.2.1"]);
    assert_eq!(ttls(&cached.hit("a.in.test.")), [30]);
    // A TTL with a unit is a zone.
    let mut cached = Cached::new("cache 30s");
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"]);
    assert!(!cached.is_kept("a.test."));
}

#[test]
fn a_live_negative_entry_goes_before_a_positive_one_and_not_longer() {
    let mut cached = Cached::new("cache");
    cached.miss("a.test.", Rcode::NXDOMAIN, &["authority: test. 5 IN SOA a. b. 1 2 3 4 5"]);
    cached.wait(2.5);
    assert_eq!(cached.hit("a.test.").response.rcode, Rcode::NXDOMAIN);
    cached.wait(3.1);
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 30 IN A 192.0.2.1"]);
    assert_eq!(cached.hit("a.test.").response.rcode, Rcode::NOERROR);
}

#[test]
fn keepttl_shows_the_ttl_that_was_stored() {
    let mut cached = Cached::new("cache {\n keepttl\n}");
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 60 IN A 192.0.2.1"]);
    cached.wait(59.0);
    assert_eq!(ttls(&cached.hit("a.test.")), [60]);
    cached.wait(1.0);
    assert!(!cached.is_kept("a.test."));
}

#[test]
fn dnssec_and_plain_clients_have_entries_of_their_own() {
    let mut cached = Cached::new("cache");
    let plain = Query::new(&name("a.test."), A, Class::IN);
    cached.ask(plain, with_flags(0));
    let mut asked = false;
    cached.ask(raw_query(flags::RD, A_TEST, Class::IN, Some(true)), |_, response| {
        asked = true;
        response.fail(Rcode::SERVFAIL, None);
    });
    assert!(asked);
}

#[test]
fn what_upstream_says_to_a_query_without_rd_is_kept_if_it_is_whole() {
    let mut cached = Cached::new("cache");
    let without = |word| raw_query(word, A_TEST, Class::IN, None);
    // A referral, a CNAME whose target upstream would have to ask for, and a NOTIFY's RD says nothing.
    for records in [&["authority: test. 30 IN NS n.test."], &["a.test. 30 IN CNAME b.test."]] {
        cached.ask(without(0), always(Rcode::NOERROR, records));
        cached.ask(without(4 << 11 | flags::RD), always(Rcode::NOERROR, records));
    }
    cached.ask(without(0), always(Rcode::SERVFAIL, &[]));
    cached.ask(without(0), always(Rcode::NOERROR, &[]));
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 30 IN A 192.0.2.1"]);
    // What is kept is for all.
    let hit = cached.ask(without(0), nobody);
    assert_eq!(hit.records(), ["a.test. 30 IN A 192.0.2.1"]);

    for (rcode, records) in [
        (Rcode::NOERROR, &["a.test. 30 IN CNAME b.test.", "b.test. 30 IN A 192.0.2.1"][..]),
        (Rcode::NOERROR, &[SOA]),
        (Rcode::NXDOMAIN, &[SOA]),
    ] {
        let mut cached = Cached::new("cache");
        cached.ask(without(0), always(rcode, records));
        assert!(cached.is_kept("a.test."), "{records:?}");
    }
}

/// A query for `a.test. A` from 192.0.2.0/24, and what `below` answers to it for networks of `scope` bits.
fn from_a_network(cached: &mut Cached, scope: u8) -> Option<u32> {
    let mut asked = query("a.test.", A);
    let mut wire = asked.wire().to_vec();
    wire.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\0\xc0\0\x02");
    wire[11] = 1;
    asked.replace(wire).unwrap();
    let mut reached = false;
    let outcome = cached.ask(asked, |query, response| {
        reached = true;
        respond(query, response, Rcode::NOERROR, &["a.test. 30 IN A 192.0.2.1"]);
        let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18";
        response.wire.extend([opt, &[scope][..], b"\xc0\0\x02"].concat());
        response.wire[11] = 1;
    });
    reached.then(|| ttls(&outcome)[0])
}

#[test]
fn an_answer_for_one_network_is_not_kept_for_others() {
    let mut cached = Cached::new("cache 20");
    assert_eq!(from_a_network(&mut cached, 24), Some(20));
    assert_eq!(from_a_network(&mut cached, 24), Some(20), "asked again");
    assert!(!cached.is_kept("a.test."));
    // One for all networks is; so is one to a client that told of none, which upstream tells of none either.
    assert_eq!(from_a_network(&mut cached, 0), Some(20));
    assert_eq!(from_a_network(&mut cached, 24), None);
    assert!(cached.is_kept("a.test."));
}
