//! Metrics, capacity, sweeping, reloads.

use super::{A, Cached, SOA, STALE, samples};
use crate::corefile::MemorySurroundings;
use crate::dns::{Rcode, Transport};
use crate::plugin::ServerIdentity;
use crate::plugin::testing::{nobody, query};
use std::sync::Arc;

#[test]
fn the_metrics_carry_cores_labels_and_appear_at_first_use() {
    let mut cached = Cached::new("cache 30 test. example.org");
    assert!(samples(&cached.bench.metrics, "coredns_cache_requests_total").is_empty());
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"]);
    cached.miss("n.test.", Rcode::NXDOMAIN, &[SOA]);
    cached.hit("a.test.");
    cached.hit("n.test.");
    let end = "view=\"\",zones=\"test.,example.org.\"}";
    let server = "server=\"dns://127.0.0.53:53\"";
    let typed = |kind: &str, value: u32| format!("{server},type=\"{kind}\",{end} {value}");
    assert_eq!(cached.samples("coredns_cache_requests_total"), [format!("{server},{end} 4")]);
    assert_eq!(cached.samples("coredns_cache_misses_total"), [format!("{server},{end} 2")]);
    for metric in ["coredns_cache_hits_total", "coredns_cache_entries"] {
        assert_eq!(cached.samples(metric), [typed("denial", 1), typed("success", 1)], "{metric}");
    }
    for metric in ["prefetch", "drops", "served_stale", "evictions"] {
        assert!(cached.samples(&format!("coredns_cache_{metric}_total")).is_empty(), "{metric}");
    }
}

#[test]
fn two_listeners_share_the_store_and_have_their_own_series() {
    let mut cached = Cached::new("cache");
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"]);
    cached.bench.server = ServerIdentity { label: Arc::from("dns://[::1]:53"), index: 1 };
    cached.hit("a.test.");
    assert_eq!(cached.samples("coredns_cache_requests_total").len(), 2);
    assert_eq!(cached.samples("coredns_cache_misses_total").len(), 1);
}

#[test]
fn the_capacity_holds_and_evictions_are_counted() {
    let mut cached = Cached::new("cache {\n success 1\n}");
    for number in 0..2000 {
        let qname = format!("n{number}.test.");
        let record = format!("{qname} 300 IN A 192.0.2.1");
        cached.miss(&qname, Rcode::NOERROR, &[&record]);
    }
    let entries = cached.value("coredns_cache_entries");
    assert_eq!(entries, 1024.0);
    assert_eq!(cached.value("coredns_cache_evictions_total"), 2000.0 - entries);
    // What is out of the store is out of all that stands before it.
    let kept = (0..2000).filter(|number| cached.is_kept(&format!("n{number}.test."))).count();
    assert_eq!(kept as f64, entries);
}

#[test]
fn a_full_store_takes_what_comes_and_keeps_what_is_asked_for() {
    let mut cached = Cached::new("cache {\n success 1\n}");
    let ask = |cached: &mut Cached, qname: &str| {
        cached.miss(qname, Rcode::NOERROR, &[&format!("{qname} 300 IN A 192.0.2.1")]);
    };
    ask(&mut cached, "asked.test.");
    for number in 0..1500 {
        ask(&mut cached, &format!("n{number}.test."));
        if number % 500 == 0 {
            cached.hit("asked.test.");
            cached.upkeep();
        }
    }
    assert!(cached.is_kept("asked.test."));
    for number in 1400..1500 {
        assert!(cached.is_kept(&format!("n{number}.test.")), "{number}");
    }
    assert!(!cached.is_kept("n0.test."));
}

#[test]
fn large_responses_are_bounded_by_octets() {
    let mut cached = Cached::new("cache {\n success 1\n}");
    let text = "x".repeat(250);
    let records: Vec<String> = (0..150).map(|_| format!("a.test. 300 IN TXT {text}")).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    for number in 0..300 {
        cached.miss(&format!("n{number}.test."), Rcode::NOERROR, &records);
    }
    // 150 × 262 octets and a little more, in 1024 × 4 KiB.
    assert_eq!(cached.value("coredns_cache_entries"), 105.0);
}

#[test]
fn upkeep_removes_what_can_no_longer_be_served() {
    let mut cached = Cached::new(STALE);
    for (qname, ttl) in [("a.test.", 5), ("b.test.", 60)] {
        let record = format!("{qname} {ttl} IN A 192.0.2.1");
        cached.miss(qname, Rcode::NOERROR, &[&record]);
    }
    cached.miss("s.test.", Rcode::SERVFAIL, &[]);
    let count = |cached: &mut Cached, qname: &str| {
        cached.upkeep();
        cached.miss(qname, Rcode::NOERROR, &[]);
        cached.value("coredns_cache_entries")
    };
    cached.wait(10.9);
    // The failure is gone, the stale entry is not.
    assert_eq!(count(&mut cached, "1.test."), 3.0);
    cached.wait(0.1);
    assert_eq!(count(&mut cached, "2.test."), 3.0);
    cached.wait(100.0);
    assert_eq!(count(&mut cached, "3.test."), 1.0);
}

#[test]
fn the_store_survives_a_reload_that_leaves_the_directive_alone() {
    let mut cached = Cached::new("cache 30");
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"]);
    let none = MemorySurroundings::default();
    cached.chain = cached.bench.load("errors\ncache 30", &none).unwrap();
    let mut hit = cached.bench.ask(&cached.chain, query("a.test.", A), nobody);
    assert_eq!(hit.records(), ["a.test. 30 IN A 192.0.2.1"]);
    cached.bench.client.transport = Transport::Tcp;
    hit = cached.bench.ask(&cached.chain, query("a.test.", A), nobody);
    assert_eq!(hit.records().len(), 1);
    cached.chain = cached.bench.load("cache 31", &none).unwrap();
    assert!(!cached.is_kept("a.test."));
}

#[test]
fn the_store_is_left_behind_when_what_answers_below_it_changed() {
    let none = MemorySurroundings::default();
    for (before, after, is_kept) in [
        ("forward . 192.0.2.1", "forward . 192.0.2.2", false),
        ("forward . 192.0.2.1", "rewrite name a.test b.test\nforward . 192.0.2.1", false),
        ("forward . 192.0.2.1", "log\nloop\nforward . 192.0.2.1", true),
    ] {
        let mut cached = Cached::new(&format!("cache 30\n{before}"));
        cached.miss("a.test.", Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"]);
        cached.chain = cached.bench.load(&format!("cache 30\n{after}"), &none).unwrap();
        assert_eq!(cached.is_kept("a.test."), is_kept, "{after}");
    }
}
