//! `serve_stale`: what is asked again, when, and what the client sees meanwhile.

use super::{A, A_TEST, Cached, SOA, STALE, raw_query, ttls};
use crate::dns::{Class, Rcode, flags};
use crate::plugin::testing::{Outcome, nobody, query};

const FRESH: &[&str] = &["a.test. 1 IN A 192.0.2.1"];

#[test]
fn a_stale_entry_is_served_until_its_window_ends() {
    let mut cached = Cached::new(STALE);
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(1.0);
    let at_zero = cached.hit("a.test.");
    assert_eq!((ttls(&at_zero), at_zero.refreshes.len()), (vec![0], 0));
    assert!(cached.samples("coredns_cache_served_stale_total").is_empty());
    cached.wait(1.5);
    let stale = cached.hit("a.test.");
    assert_eq!((ttls(&stale), stale.refreshes.len()), (vec![0], 1));
    assert_eq!(stale.response.flags() & flags::AA, flags::AA);
    assert_eq!(cached.value("coredns_cache_served_stale_total"), 1.0);
    assert_eq!(cached.value("coredns_cache_hits_total"), 2.0);
    cached.wait(4.4);
    cached.hit("a.test.");
    cached.wait(0.1);
    assert!(!cached.is_kept("a.test."));
}

#[test]
fn one_refresh_at_a_time_and_another_after_it_failed() {
    let mut cached = Cached::new(STALE);
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    let first = cached.hit("a.test.");
    assert_eq!(first.refreshes.len(), 1);
    for _ in 0..5 {
        assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    }
    cached.failed_refresh(&first);
    let second = cached.hit("a.test.");
    assert_eq!(second.refreshes.len(), 1);
    cached.refresh(&second, Rcode::NOERROR, &["a.test. 30 IN A 192.0.2.2"]);
    assert_eq!(cached.hit("a.test.").records(), ["a.test. 30 IN A 192.0.2.2"]);
}

#[test]
fn a_refresh_that_never_comes_back_does_not_forbid_the_next_for_ever() {
    let mut cached = Cached::new("cache {\n success 9984 3600 1\n serve_stale\n}");
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 1);
    cached.wait(9.9);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    cached.wait(0.1);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 1);
}

#[test]
fn a_failed_refresh_never_hides_the_stale_answer() {
    let mut cached = Cached::new(STALE);
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    let stale = cached.hit("a.test.");
    cached.refresh(&stale, Rcode::SERVFAIL, &[]);
    let again = cached.hit("a.test.");
    assert_eq!(again.response.rcode, Rcode::NOERROR);
    assert_eq!(again.refreshes.len(), 0, "the failure is cached");
}

#[test]
fn a_failure_is_not_served_stale() {
    let mut cached = Cached::new("cache {\n serve_stale 1h\n}");
    cached.miss("a.test.", Rcode::SERVFAIL, &[]);
    cached.wait(4.9);
    cached.hit("a.test.");
    cached.wait(0.1);
    assert!(!cached.is_kept("a.test."));
}

#[test]
fn a_refreshed_answer_replaces_the_negative_one_and_back() {
    let soa = ["authority: test. 1 IN SOA a. b. 1 2 3 4 5"];
    let mut cached = Cached::new(STALE);
    cached.miss("a.test.", Rcode::NXDOMAIN, &soa);
    cached.wait(2.0);
    let stale = cached.hit("a.test.");
    assert_eq!(stale.response.rcode, Rcode::NXDOMAIN);
    cached.refresh(&stale, Rcode::NOERROR, FRESH);
    assert_eq!(cached.hit("a.test.").response.rcode, Rcode::NOERROR);
    cached.wait(2.0);
    let stale = cached.hit("a.test.");
    assert_eq!(stale.response.rcode, Rcode::NOERROR);
    cached.refresh(&stale, Rcode::NXDOMAIN, &soa);
    assert_eq!(cached.hit("a.test.").response.rcode, Rcode::NXDOMAIN);
    cached.wait(3.0);
    assert_eq!(cached.hit("a.test.").response.rcode, Rcode::NXDOMAIN, "not the old answer");
}

const VERIFY: &str = "cache {\n success 9984 3600 1\n serve_stale 1h verify\n}";

#[test]
fn verify_asks_first_and_takes_noerror_and_nxdomain() {
    for (rcode, records, taken) in [
        (Rcode::NOERROR, vec!["a.test. 30 IN A 192.0.2.2"], true),
        (Rcode::NXDOMAIN, vec![SOA], true),
        (Rcode::SERVFAIL, vec![], false),
        (Rcode::REFUSED, vec![], false),
    ] {
        let mut cached = Cached::new(VERIFY);
        cached.miss("a.test.", Rcode::NOERROR, FRESH);
        cached.wait(2.0);
        let outcome = cached.miss("a.test.", rcode, &records);
        assert_eq!(outcome.refreshes.len(), 0);
        if taken {
            assert_eq!(outcome.response.rcode, rcode);
            assert_eq!(outcome.response.flags() & flags::AA, 0);
            assert_eq!(cached.hit("a.test.").response.rcode, rcode);
        } else {
            assert_eq!(outcome.records(), ["a.test. 0 IN A 192.0.2.1"], "{rcode}");
            assert_eq!(cached.value("coredns_cache_served_stale_total"), 1.0);
        }
    }
}

#[test]
fn who_has_a_stale_answer_waits_for_no_upstream_to_come_back() {
    let directives = format!("{VERIFY}\n forward . 192.0.2.53");
    let mut cached = Cached::new(&directives);
    let first = cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    let stale = cached.miss("a.test.", Rcode::SERVFAIL, &[]);
    let hasty = |outcome: &Outcome| outcome.exchanges[0].is_hasty;
    assert_eq!((hasty(&first), hasty(&stale)), (false, true));
}

#[test]
fn verify_hides_that_upstream_failed() {
    let mut cached = Cached::new(VERIFY);
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    let outcome = cached.ask(query("a.test.", A), |_, response| {
        response.fail(Rcode::SERVFAIL, Some("i/o timeout".into()));
    });
    assert_eq!(outcome.records(), ["a.test. 0 IN A 192.0.2.1"]);
    assert_eq!(outcome.response.error, None);
}

#[test]
fn verify_with_a_timeout_serves_stale_when_it_ends_and_refreshes_behind_it() {
    let mut cached = Cached::new("cache {\n success 9984 3600 1\n serve_stale 1h Verify 100ms\n}");
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    cached.bench.upstream_is_late = true;
    let outcome = cached.ask(query("a.test.", A), nobody);
    assert_eq!(outcome.records(), ["a.test. 0 IN A 192.0.2.1"]);
    assert_eq!(outcome.refreshes.len(), 1);
    assert_eq!(cached.ask(query("a.test.", A), nobody).refreshes.len(), 0);
    cached.bench.upstream_is_late = false;
    cached.refresh(&outcome, Rcode::NOERROR, &["a.test. 30 IN A 192.0.2.2"]);
    assert_eq!(cached.hit("a.test.").records(), ["a.test. 30 IN A 192.0.2.2"]);
}

#[test]
fn while_a_late_answer_is_refreshed_nobody_is_asked_for_it_again() {
    for (recheck, is_asked) in [("", true), (" 30s 10s", false)] {
        let stale = format!("serve_stale 1h verify 100ms{recheck}");
        let mut cached = Cached::new(&format!("cache {{\n success 9984 3600 1\n {stale}\n}}"));
        cached.miss("a.test.", Rcode::NOERROR, FRESH);
        cached.wait(2.0);
        cached.bench.upstream_is_late = true;
        assert_eq!(cached.ask(query("a.test.", A), nobody).refreshes.len(), 1);
        cached.bench.upstream_is_late = false;
        assert_eq!(!cached.is_kept("a.test."), is_asked, "{recheck}");
    }
}

#[test]
fn a_late_response_leaves_the_question_as_it_came() {
    let directives = "cache {\n success 9984 3600 1\n serve_stale 1h verify 100ms\n}
        rewrite name a.test longer.name.test";
    let mut cached = Cached::new(directives);
    cached.miss("a.test.", Rcode::NOERROR, &["longer.name.test. 1 IN A 192.0.2.1"]);
    cached.wait(2.0);
    cached.bench.upstream_is_late = true;
    let outcome = cached.ask(query("a.test.", A), nobody);
    assert_eq!(outcome.query.name().to_string(), "a.test.");
    assert_eq!(outcome.response.message().unwrap().question().unwrap().0.to_string(), "a.test.");
    assert_eq!(outcome.refreshes[0].1.name().to_string(), "a.test.");
}

#[test]
fn serve_stale_without_time_is_none() {
    for directive in ["cache {\n serve_stale 0s\n}", "cache {\n serve_stale 0 verify\n}"] {
        let mut cached = Cached::new(directive);
        cached.miss("a.test.", Rcode::NOERROR, &["a.test. 5 IN A 192.0.2.1"]);
        cached.wait(5.0);
        assert!(!cached.is_kept("a.test."));
    }
}

#[test]
fn a_response_ttl_is_what_expired_entries_show() {
    for (mode, expected) in [("immediate 30s", 30), ("verify 0 7s", 7), ("immediate 0", 0)] {
        let block = format!("cache {{\n success 9984 3600 1\n serve_stale 1h {mode}\n}}");
        let mut cached = Cached::new(&block);
        cached.miss("a.test.", Rcode::NOERROR, FRESH);
        cached.wait(2.0);
        let stale = match mode.starts_with("verify") {
            true => cached.miss("a.test.", Rcode::SERVFAIL, &[]),
            false => cached.hit("a.test."),
        };
        assert_eq!(ttls(&stale), [expected], "{mode}");
    }
}

#[test]
fn after_a_failed_refresh_nobody_asks_before_the_failure_recheck() {
    let mut cached = Cached::new(
        "cache {\n success 9984 3600 1\n servfail 0\n serve_stale 1h immediate 9s 20s\n}",
    );
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    let stale = cached.hit("a.test.");
    assert_eq!(stale.refreshes.len(), 1);
    cached.failed_refresh(&stale);
    cached.wait(19.9);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    cached.wait(0.1);
    let stale = cached.hit("a.test.");
    assert_eq!(stale.refreshes.len(), 1);
    cached.refresh(&stale, Rcode::SERVFAIL, &[]);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    cached.wait(20.0);
    let stale = cached.hit("a.test.");
    cached.refresh(&stale, Rcode::NOERROR, &["a.test. 30 IN A 192.0.2.2"]);
    assert_eq!(cached.hit("a.test.").records(), ["a.test. 30 IN A 192.0.2.2"]);
}

#[test]
fn a_failed_verification_is_not_repeated_before_the_failure_recheck() {
    let mut cached = Cached::new(
        "cache {\n success 9984 3600 1\n servfail 0\n serve_stale 1h verify 0 9s 20s\n}",
    );
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    assert_eq!(ttls(&cached.miss("a.test.", Rcode::SERVFAIL, &[])), [9]);
    cached.wait(19.9);
    assert_eq!(ttls(&cached.hit("a.test.")), [9], "nobody is asked");
    cached.wait(0.1);
    let verified = cached.miss("a.test.", Rcode::NOERROR, &["a.test. 30 IN A 192.0.2.2"]);
    assert_eq!(verified.records(), ["a.test. 30 IN A 192.0.2.2"]);
}

#[test]
fn serve_stale_without_a_duration_lasts_for_an_hour() {
    let mut cached = Cached::new("cache {\n success 9984 3600 1\n serve_stale\n}");
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(3600.9);
    cached.hit("a.test.");
    cached.wait(0.1);
    assert!(!cached.is_kept("a.test."));
}

#[test]
fn verify_with_a_timeout_of_0_waits_for_upstream() {
    let mut cached = Cached::new("cache {\n success 9984 3600 1\n serve_stale 1h verify 0\n}");
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    cached.bench.upstream_is_late = true;
    let verified = cached.miss("a.test.", Rcode::NOERROR, &["a.test. 30 IN A 192.0.2.2"]);
    assert_eq!(verified.records(), ["a.test. 30 IN A 192.0.2.2"]);
}

#[test]
fn what_verifies_an_expired_entry_takes_its_place_though_disable_names_its_kind() {
    let mut cached =
        Cached::new("cache {\n success 9984 3600 1\n disable denial\n serve_stale 1h verify\n}");
    cached.miss("a.test.", Rcode::NOERROR, FRESH);
    cached.wait(2.0);
    cached.miss("a.test.", Rcode::NXDOMAIN, &[SOA]);
    assert_eq!(cached.hit("a.test.").response.rcode, Rcode::NXDOMAIN);
}

#[test]
fn a_prefetch_that_failed_holds_back_no_refresh_once_the_entry_is_expired() {
    let mut cached = Cached::new(
        "cache {\n success 9984 3600 1\n servfail 0\n prefetch 1 1m 90%\n \
         serve_stale 1h immediate 0 20s\n}",
    );
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 10 IN A 192.0.2.1"]);
    cached.wait(10.0);
    let wish = cached.hit("a.test.");
    cached.failed_refresh(&wish);
    cached.wait(1.0);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 1);
}

#[test]
fn a_query_without_rd_is_answered_with_what_is_there_and_refreshes_nothing() {
    let without_rd = || raw_query(0, A_TEST, Class::IN, None);
    let prefetching = STALE.replace("serve_stale", "prefetch 1 1m 90%\n serve_stale");
    for directive in
        [&prefetching, &STALE.replace("6s", "6s verify"), &STALE.replace("6s", "6s verify 1s")]
    {
        let mut cached = Cached::new(directive);
        cached.miss("a.test.", Rcode::NOERROR, &["a.test. 2 IN A 192.0.2.1"]);
        cached.wait(1.0);
        for (ttl, seconds) in [(1, 1.5), (0, 0.0)] {
            let hit = cached.ask(without_rd(), nobody);
            assert_eq!((ttls(&hit), hit.refreshes.len()), (vec![ttl], 0), "{directive}");
            cached.wait(seconds);
        }
    }
}
