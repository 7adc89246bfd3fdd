//! The store itself: who has to go, and what an entry costs.

use super::super::entry::{Entry, QueryBits, Terms, milliseconds};
use super::super::shard::Shard;
use super::super::store::{Origin, SLICE, Side, Store};
use super::A;
use crate::dns::{Query, Rcode, Response, flags};
use crate::plugin::Budget;
use crate::plugin::testing::{query, respond};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;

pub(super) const NOW: Duration = Duration::from_secs(1000);

pub(super) fn store(capacity: u64, window: u32) -> Store {
    Store::new(capacity, capacity, window, 7, Arc::default())
}

/// An entry for an A query with one address, 300 s to live from `stored` on.
fn entry(store: &Store, query: &Query<'_>, side: Side, stored: Duration) -> Entry {
    let mut response = Response::new();
    respond(
        query,
        &mut response,
        Rcode::NOERROR,
        &[&format!("{} 300 IN A 192.0.2.1", query.name())],
    );
    let place = response.message().unwrap().records().next().unwrap().ttl_at as u16;
    let terms = Terms {
        key: store.key(query),
        side,
        ttl: 300,
        stored: milliseconds(stored),
        is_failure: false,
        rcode: Rcode::NOERROR,
        bits: QueryBits::of(query),
        uncompressed_size: response.wire.len(),
    };
    Entry::answering(query, &response, &[place], terms)
}

pub(super) fn put(store: &Store, query: &Query<'_>, side: Side, now: Duration) {
    store.put(entry(store, query, side, now), now, Origin::Client);
}

fn holds(store: &Store, query: &Query<'_>, now: Duration) -> bool {
    store.find(store.key(query), query, now, |_| ()).is_some()
}

/// The part of `count` queries, Zipf-distributed (s = 1) over `names` names, that a store of
/// `capacity` answers once it is warm.
fn hit_ratio(capacity: u64, names: usize, count: usize) -> f64 {
    let store = store(capacity, 0);
    let mut cumulated: Vec<f64> = Vec::with_capacity(names);
    for rank in 1..=names {
        cumulated.push(cumulated.last().copied().unwrap_or(0.0) + 1.0 / rank as f64);
    }
    let queries: Vec<Query<'_>> =
        (0..names).map(|number| query(&format!("n{number}.test."), A)).collect();
    let mut random = StdRng::seed_from_u64(1);
    let mut hits = 0;
    for number in 0..2 * count {
        let point = random.random::<f64>() * cumulated[names - 1];
        let query = &queries[cumulated.partition_point(|sum| *sum < point)];
        if holds(&store, query, NOW) {
            hits += usize::from(number >= count);
        } else {
            put(&store, query, Side::Success, NOW);
        }
    }
    assert_eq!(store.count(Side::Success), capacity);
    hits as f64 / count as f64
}

#[test]
fn the_hit_ratio_of_a_full_store_is_that_of_the_best() {
    let ratio = hit_ratio(9984, 100_000, 250_000);
    assert!(ratio >= 0.78, "{ratio}");
}

#[test]
fn stores_share_a_budget_and_the_largest_makes_room() {
    let budget = Arc::new(Budget::new(Some(16 << 20)));
    let made = || {
        let store = Arc::new(Store::new(100_000, 100_000, 0, 7, budget.clone()));
        budget.enrol(&store);
        store
    };
    let (old, new) = (made(), made());
    for number in 0..60_000 {
        put(&old, &query(&format!("n{number}.test."), A), Side::Success, NOW);
    }
    assert!(!budget.cache.is_over());
    assert_eq!(old.octets(), budget.cache.used());
    assert!(old.count(Side::Success) < 60_000 && old.take_evicted(Side::Success) > 0);
    // The one that comes later gets as much as the other.
    for number in 0..60_000 {
        put(&new, &query(&format!("m{number}.test."), A), Side::Success, NOW);
    }
    assert!(!budget.cache.is_over());
    assert!(old.octets().abs_diff(new.octets()) < 100_000, "{old:?} {new:?}");
    drop(old);
    assert_eq!(new.octets(), budget.cache.used());
}

#[test]
fn a_store_with_nothing_in_it_has_nothing_to_give() {
    let budget = Arc::new(Budget::new(Some(1 << 20)));
    budget.cache.add(1 << 20);
    let store = Store::new(1024, 1024, 0, 7, budget.clone());
    assert!(budget.cache.is_over() && !store.give_way(NOW));
    put(&store, &query("a.test.", A), Side::Denial, NOW);
    assert!(store.give_way(NOW) && store.count(Side::Denial) == 0);
}

#[test]
fn no_more_gives_way_than_is_needed() {
    let budget = Arc::new(Budget::new(Some(1 << 20)));
    let store = Store::new(1024, 1024, 0, 7, budget.clone());
    for number in 0..100 {
        put(&store, &query(&format!("n{number}.test."), A), Side::Success, NOW);
    }
    for number in 0..50 {
        put(&store, &query(&format!("m{number}.test."), A), Side::Denial, NOW);
    }
    budget.cache.add(budget.cache.most() - budget.cache.used() + 1);
    assert!(store.give_way(NOW) && !budget.cache.is_over());
    // Of the larger one.
    assert_eq!((store.count(Side::Success), store.count(Side::Denial)), (99, 50));
}

#[test]
fn the_other_store_gives_way_and_the_counts_follow() {
    let store = store(1024, 0);
    let query = query("a.test.", A);
    put(&store, &query, Side::Denial, NOW);
    let octets = store.octets();
    put(&store, &query, Side::Success, NOW);
    assert_eq!((store.count(Side::Denial), store.count(Side::Success)), (0, 1));
    put(&store, &query, Side::Success, NOW);
    assert_eq!((store.octets(), store.count(Side::Success)), (octets, 1));
}

#[test]
fn a_sweep_takes_what_is_over_and_gives_the_memory_back() {
    let store = store(65_536, 0);
    let names: Vec<Query<'_>> = (0..20_000).map(|n| query(&format!("n{n}.test."), A)).collect();
    for (number, query) in names.iter().enumerate() {
        let later = if number % 10 == 0 { 100 } else { 0 };
        put(&store, query, Side::Success, NOW + Duration::from_secs(later));
    }
    let now = NOW + Duration::from_secs(300);
    store.sweep(now);
    assert_eq!(store.count(Side::Success), 2000);
    let slots: usize = (0..64).filter_map(|shard| Some(store.locked(shard)?.places())).sum();
    assert!(slots < 4000, "{slots}");
    for (number, query) in names.iter().enumerate() {
        assert_eq!(holds(&store, query, now), number % 10 == 0);
    }
    store.sweep(now + Duration::from_secs(100));
    assert_eq!((store.count(Side::Success), store.octets()), (0, 0));
}

#[test]
fn what_is_over_goes_before_what_is_asked_for() {
    let store = store(1024, 0);
    let names: Vec<Query<'_>> = (0..1524).map(|n| query(&format!("n{n}.test."), A)).collect();
    for (number, query) in names.iter().enumerate().take(1024) {
        let age = if number % 2 == 0 { 299 } else { 0 };
        put(&store, query, Side::Success, NOW - Duration::from_secs(age));
        assert!(holds(&store, query, NOW) && holds(&store, query, NOW));
    }
    let now = NOW + Duration::from_secs(1);
    for query in &names[1024..] {
        put(&store, query, Side::Success, now);
    }
    let kept = names[..1024].iter().skip(1).step_by(2).filter(|query| holds(&store, query, now));
    let kept = kept.count();
    // Chance, by the hash of the names, takes some fifty of each from shards that have too many of them.
    assert!(kept > 400, "{kept} of 512");
    let new = names[1024..].iter().filter(|query| holds(&store, query, now)).count();
    assert!(new > 400, "{new} of 500");
    assert_eq!(store.count(Side::Success), 1024);
}

#[test]
fn an_entry_costs_little_more_than_its_message() {
    let store = store(1024, 0);
    let query = query("service-17.namespace-3.svc.cluster.local.", A);
    let entry = entry(&store, &query, Side::Success, NOW);
    let message = entry.wire().len();
    // Its place, and that of its TTL.
    assert!(entry.octets() > message + 2 + super::super::shard::SLOT_OCTETS);
    assert!(entry.octets() <= message + 128, "{} for {message}", entry.octets());
    const { assert!(super::super::shard::SLOT_OCTETS <= 80) };
}

#[test]
fn room_is_made_among_entries_that_are_all_asked_for() {
    let store = store(1024, 0);
    let names: Vec<Query<'_>> = (0..2048).map(|n| query(&format!("n{n}.test."), A)).collect();
    for query in &names {
        put(&store, query, Side::Success, NOW);
        assert!((0..4).all(|_| holds(&store, query, NOW)));
    }
    assert_eq!(store.count(Side::Success), 1024);
}

#[test]
fn one_eviction_looks_at_a_bounded_number_of_entries() {
    let mut shard = Shard::new(1024, 0);
    let store = store(1024, 0);
    for number in 0..1000 {
        let mut entry = entry(&store, &query(&format!("n{number}.test."), A), Side::Success, NOW);
        (0..4).for_each(|_| entry.touch());
        shard.insert(entry);
    }
    // Each has been asked for three times: to go by that alone, all had to be looked at several times.
    assert!(shard.evict(Side::Success, NOW, 0).is_some());
}

#[test]
fn who_was_let_go_as_a_newcomer_comes_back_in_the_main_queue_and_is_a_newcomer_after_that() {
    let store = store(1024, 0);
    let name = query("a.test.", A);
    let mut shard = Shard::new(1024, 0);
    for is_main in [false, true, false, true] {
        shard.insert(entry(&store, &name, Side::Success, NOW));
        let slot = shard.holder(store.key(&name), Side::Success).unwrap();
        assert_eq!(shard.entry(slot).unwrap().is_main, is_main);
        assert!(shard.evict(Side::Success, NOW, 0).is_some());
    }
}

#[test]
fn room_is_made_in_whichever_shard_has_something_to_give() {
    // Sixteen shards: the one that takes an entry has nothing else, nor have most of the others.
    let store = store(2, 0);
    for number in 0..100 {
        put(&store, &query(&format!("n{number}.test."), A), Side::Success, NOW);
        assert!(store.count(Side::Success) <= 2, "{number}");
    }
}

#[test]
fn who_was_swept_comes_back_among_newcomers_unless_it_was_asked_for() {
    let store = store(1024, 0);
    let (asked, unasked) = (query("asked.test.", A), query("unasked.test.", A));
    let mut shard = Shard::new(1024, 0);
    for (query, hits) in [(&asked, 1), (&unasked, 0)] {
        let mut entry = entry(&store, query, Side::Success, NOW);
        (0..hits).for_each(|_| entry.touch());
        shard.insert(entry);
    }
    let later = NOW + Duration::from_secs(301);
    let mut gone = 0;
    assert_eq!(shard.sweep(0, SLICE, (later, 0), |_| gone += 1), None);
    assert_eq!(gone, 2);
    for (query, is_main) in [(&asked, true), (&unasked, false)] {
        shard.insert(entry(&store, query, Side::Success, later));
        let slot = shard.holder(store.key(query), Side::Success).unwrap();
        assert_eq!(shard.entry(slot).unwrap().is_main, is_main, "{}", query.name());
    }
}

#[test]
fn an_entry_of_a_moment_to_come_has_its_ttl_and_no_more() {
    // The clocks of two threads differ by the time of a batch.
    let store = store(1024, 0);
    let entry = entry(&store, &query("a.test.", A), Side::Success, NOW + Duration::from_secs(2));
    assert_eq!((entry.remaining(NOW), entry.age(NOW)), (300, 0));
}

#[test]
fn a_count_of_hits_ends_at_its_greatest_number() {
    let prefetch = super::super::options::Prefetch {
        amount: u32::MAX,
        gap: Duration::from_secs(60),
        percent: 90,
    };
    let store = store(1024, 0);
    let mut entry = entry(&store, &query("a.test.", A), Side::Success, NOW);
    let late = NOW + Duration::from_secs(290);
    entry.set_popularity(u32::MAX, Some(0), late);
    assert!(entry.hit(&prefetch, late));
}

#[test]
fn two_questions_with_one_key_are_not_taken_for_one_another() {
    let store = store(1024, 0);
    let here = query("a.test.", A);
    let mut with_cd = here.clone();
    with_cd.set_flags(with_cd.flags() | flags::CD);
    let mut shard = Shard::new(1024, 0);
    shard.insert(entry(&store, &here, Side::Success, NOW));
    let found = |query: &Query<'_>| shard.find(store.key(&here), query).side(Side::Success);
    assert!(found(&here).is_some());
    for other in [query("b.test.", A), query("a.test.", crate::dns::RecordType::AAAA), with_cd] {
        assert!(found(&other).is_none(), "{other:?}");
    }
}

#[test]
fn what_takes_an_entrys_place_has_its_turn_and_its_friends() {
    let store = store(1024, 0);
    let name = query("a.test.", A);
    let mut shard = Shard::new(1024, 0);
    // Let go once: it comes back in the main queue.
    shard.insert(entry(&store, &name, Side::Success, NOW));
    assert!(shard.evict(Side::Success, NOW, 0).is_some());
    shard.insert(entry(&store, &name, Side::Success, NOW));
    let slot = shard.holder(store.key(&name), Side::Success).unwrap();
    (0..2).for_each(|_| shard.entry_mut(slot).unwrap().touch());
    assert!(shard.replace(slot, entry(&store, &name, Side::Success, NOW)).is_some());
    let here = shard.entry(slot).unwrap();
    assert_eq!((here.asked(), here.is_main), (2, true));
}
