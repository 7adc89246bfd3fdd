//! `prefetch`: which entries are fetched anew before they expire.

use super::{Cached, ttls};
use crate::dns::Rcode;

#[test]
fn a_popular_name_is_fetched_before_it_expires() {
    let mut cached = Cached::new("cache {\n prefetch 2 10s 20%\n}");
    let records = ["a.test. 100 IN A 192.0.2.1"];
    cached.miss("a.test.", Rcode::NOERROR, &records);
    cached.wait(79.0);
    // Popular, but 21 s are left, over 20 %.
    assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    cached.wait(1.0);
    let wish = cached.hit("a.test.");
    assert_eq!(wish.refreshes.len(), 1);
    assert_eq!(ttls(&wish), [20]);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 0, "one is under way");
    cached.refresh(&wish, Rcode::NOERROR, &records);
    assert_eq!(cached.value("coredns_cache_prefetch_total"), 1.0);
    assert_eq!(ttls(&cached.hit("a.test.")), [100]);
    // The gap to the last hit is too long: popularity starts anew.
    cached.wait(85.0);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 1);
}

#[test]
fn a_prefetched_entry_inherits_its_popularity() {
    let mut cached = Cached::new("cache {\n prefetch 3 1h 90%\n}");
    let records = ["a.test. 100 IN A 192.0.2.1"];
    cached.miss("a.test.", Rcode::NOERROR, &records);
    cached.wait(20.0);
    cached.hit("a.test.");
    cached.hit("a.test.");
    let wish = cached.hit("a.test.");
    cached.refresh(&wish, Rcode::NOERROR, &records);
    cached.wait(20.0);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 1);
}

#[test]
fn a_failed_prefetch_leaves_the_answer() {
    let mut cached = Cached::new("cache {\n prefetch 1 1m 90%\n}");
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 100 IN A 192.0.2.1"]);
    cached.wait(20.0);
    let wish = cached.hit("a.test.");
    cached.refresh(&wish, Rcode::SERVFAIL, &[]);
    let hit = cached.hit("a.test.");
    assert_eq!(hit.response.rcode, Rcode::NOERROR);
    assert_eq!(hit.refreshes.len(), 0);
    cached.wait(5.0);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 1, "the failure is over");
}

#[test]
fn prefetch_begins_at_a_tenth_of_the_ttl_rounded_up_and_bears_a_minute_between_hits() {
    let mut cached = Cached::new("cache {\n prefetch 3\n}");
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 101 IN A 192.0.2.1"]);
    cached.wait(30.0);
    (0..2).for_each(|_| assert_eq!(cached.hit("a.test.").refreshes.len(), 0));
    cached.wait(59.9);
    // Asked for often enough, and 12 s are left.
    assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    cached.wait(0.1);
    assert_eq!(cached.hit("a.test.").refreshes.len(), 1);
}

#[test]
fn with_a_gap_below_0_only_hits_at_the_same_moment_make_a_name_popular() {
    let mut cached = Cached::new("cache {\n prefetch 2 -1m 90%\n}");
    cached.miss("a.test.", Rcode::NOERROR, &["a.test. 100 IN A 192.0.2.1"]);
    cached.wait(50.0);
    for _ in 0..3 {
        cached.wait(0.1);
        assert_eq!(cached.hit("a.test.").refreshes.len(), 0);
    }
    assert_eq!(cached.hit("a.test.").refreshes.len(), 1);
}

#[test]
fn a_popular_name_stays_one_when_it_appears_or_is_gone() {
    let a = ["a.test. 100 IN A 192.0.2.1"];
    let soa = ["authority: test. 100 IN SOA a. b. 1 2 3 4 100"];
    for (first, then) in [
        ((Rcode::NOERROR, &a), (Rcode::NXDOMAIN, &soa)),
        ((Rcode::NXDOMAIN, &soa), (Rcode::NOERROR, &a)),
    ] {
        let mut cached = Cached::new("cache {\n prefetch 3 1h 90%\n}");
        cached.miss("a.test.", first.0, first.1);
        cached.wait(20.0);
        cached.hit("a.test.");
        cached.hit("a.test.");
        let wish = cached.hit("a.test.");
        cached.refresh(&wish, then.0, then.1);
        cached.wait(20.0);
        let hit = cached.hit("a.test.");
        assert_eq!((hit.response.rcode, hit.refreshes.len()), (then.0, 1));
    }
}
