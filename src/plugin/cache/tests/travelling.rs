//! Entries on their way out of a store and into another one.

use super::super::store::{SLICE, Side, Store};
use super::super::{Cursor, Kept, KeptAs};
use super::A;
use super::storing::{NOW, put, store};
use crate::dns::{Query, Response, flags};
use crate::plugin::testing::query;
use std::collections::BTreeSet;
use std::time::Duration;

/// A walk over the whole store.
fn exported(store: &Store, now: Duration) -> Vec<Kept> {
    let mut cursor = Cursor::default();
    let mut all = Vec::new();
    while let Some(some) = store.export(&mut cursor, now) {
        assert!(some.len() <= SLICE);
        all.extend(some);
    }
    all
}

#[test]
fn what_one_store_exports_another_imports() {
    let (old, new) = (store(1024, 60), store(1024, 60));
    let names: Vec<Query<'_>> = (0..800).map(|n| query(&format!("n{n}.test."), A)).collect();
    for (number, query) in names.iter().enumerate() {
        let side = if number % 3 == 0 { Side::Denial } else { Side::Success };
        put(&old, query, side, NOW + Duration::from_millis(number as u64));
    }
    // Another process has another clock.
    let (later, elsewhere) = (NOW + Duration::from_secs(100), Duration::from_secs(5));
    let all = exported(&old, later);
    assert_eq!(all.len(), 800);
    for kept in &all {
        assert!(new.import(kept, elsewhere));
    }
    let by_message = |store: &Store, now| -> BTreeSet<(Box<[u8]>, u64)> {
        exported(store, now).into_iter().map(|kept| (kept.message, kept.age)).collect()
    };
    assert_eq!(by_message(&new, elsewhere), by_message(&old, later));
    assert_eq!(new.count(Side::Denial), 267);
    let mut response = Response::new();
    new.find(new.key(&names[1]), &names[1], elsewhere, |found| {
        found.entry.write(&names[1], &mut response, 200);
    });
    assert_eq!(response.message().unwrap().records().next().unwrap().ttl, 200);
    // 300 s of TTL and 60 s of serve-stale, of which 100 are over.
    assert_eq!(exported(&new, elsewhere + Duration::from_secs(258)).len(), 800);
    assert_eq!(exported(&new, elsewhere + Duration::from_secs(261)).len(), 0);
}

#[test]
fn popularity_travels_with_an_entry() {
    let (old, new) = (store(1024, 0), store(1024, 0));
    let query = query("a.test.", A);
    put(&old, &query, Side::Success, NOW);
    let prefetch =
        super::super::options::Prefetch { amount: 3, gap: Duration::from_secs(60), percent: 90 };
    let hit = |store: &Store, now| {
        store.find(store.key(&query), &query, now, |found| found.entry.hit(&prefetch, now)).unwrap()
    };
    let late = NOW + Duration::from_secs(50);
    assert!(!hit(&old, late) && !hit(&old, late));
    let [kept] = exported(&old, late + Duration::from_secs(2)).try_into().unwrap();
    assert_eq!((kept.hits, kept.last_hit, kept.age), (2, Some(2000), 52_000));
    assert!(new.import(&kept, Duration::from_secs(1)));
    assert!(hit(&new, Duration::from_secs(1)));
}

#[test]
fn what_is_no_entry_is_not_imported() {
    let store = store(1024, 0);
    let good = {
        put(&store, &query("a.test.", A), Side::Success, NOW);
        exported(&store, NOW).remove(0)
    };
    let empty = self::store(1024, 0);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = good.message.to_vec();
        change(&mut message);
        Kept { message: message.into(), ..good.clone() }
    };
    let upper = changed(&|message| message[13] = b'A');
    let query = changed(&|message| message[2] &= !(flags::QR >> 8) as u8);
    let cut = changed(&|message| message.truncate(20));
    let longer = changed(&|message| message.push(0));
    let two = changed(&|message| message[5] = 2);
    let opt = changed(&|message| {
        message[11] = 1;
        message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    });
    let old = Kept { age: 300_000, ..good.clone() };
    for wrong in [upper, query, cut, longer, two, opt, old] {
        assert!(!empty.import(&wrong, NOW), "{wrong:?}");
    }
    assert_eq!(empty.count(Side::Success), 0);
    assert!(empty.import(&good, NOW));
    // What is here is not replaced by what was, nor by itself.
    assert!(empty.import(&Kept { age: 5, ..good.clone() }, NOW));
    assert!(empty.import(&Kept { hits: 7, ..good.clone() }, NOW));
    let [here] = exported(&empty, NOW).try_into().unwrap();
    assert_eq!((here.age, here.hits), (0, 0));
    let denial = Kept { kind: KeptAs::Denial, ..good };
    assert!(empty.import(&denial, NOW));
    assert_eq!((empty.count(Side::Success), empty.count(Side::Denial)), (0, 1));
}

#[test]
fn a_failure_stays_one_in_another_store() {
    let (old, new) = (store(1024, 60), store(1024, 60));
    put(&old, &query("a.test.", A), Side::Denial, NOW);
    let [kept] = exported(&old, NOW).try_into().unwrap();
    assert!(new.import(&Kept { kind: KeptAs::Failure, ..kept }, NOW));
    let last = NOW + Duration::from_secs(299);
    assert_eq!(exported(&new, last)[0].kind, KeptAs::Failure);
    assert!(exported(&new, last + Duration::from_secs(1)).is_empty(), "it is never stale");
}
