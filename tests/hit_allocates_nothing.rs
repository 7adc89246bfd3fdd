//! A hit allocates nothing, from the octets of the query to those of the reply: counted by an
//! allocator that counts, through the usual directives.
#![allow(unsafe_code)] // An allocator can be written in no other way.

#[path = "../benches/rig/mod.rs"]
mod rig;

use nodens::dns::Transport;
use rig::{Outcome, Rig};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending counts no more.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NAME: &[u8] = b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\0";
const A: u16 = 1;

/// How many allocations `hits` of one name cost, after a few to warm up.
fn allocations(corefile: &str, transport: Transport, size: Option<u16>, hits: u16) -> usize {
    let mut rig = Rig::new(corefile);
    rig.set_transport(transport);
    let query = rig::query(1, NAME, A, size);
    match rig.receive(&query) {
        Outcome::Asked(parked) => assert!(rig.answer(parked, &rig::addresses(&query, 3))),
        other => panic!("a miss: {other:?}"),
    }
    let queries: Vec<Vec<u8>> = (0..hits).map(|id| rig::query(id, NAME, A, size)).collect();
    for query in queries.iter().take(8) {
        assert!(matches!(rig.receive(query), Outcome::Reply));
    }
    let before = ALLOCATIONS.get();
    for query in &queries {
        rig.now.monotonic += Duration::from_millis(1);
        assert!(matches!(rig.receive(query), Outcome::Reply));
    }
    ALLOCATIONS.get() - before
}

#[test]
fn a_hit_allocates_nothing() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for size in [None, Some(1232)] {
            let count = allocations(rig::COREFILE, transport, size, 1000);
            assert_eq!(count, 0, "{transport:?} {size:?}");
        }
    }
}

#[test]
fn a_hit_under_loadbalance_allocates_nothing() {
    let corefile = rig::COREFILE.replace("errors", "errors\n    loadbalance");
    let count = allocations(&corefile, Transport::Udp, Some(1232), 1000);
    assert_eq!(count, 0);
}

#[test]
fn a_hit_under_every_handler_above_the_cache_allocates_nothing() {
    let more = "errors\n    cancel\n    nsid x\n    local\n    any\n    chaos\n    \
                acl {\n        allow net 127.0.0.0/8\n        block\n    }\n";
    let corefile = rig::COREFILE.replace("errors", more);
    let count = allocations(&corefile, Transport::Udp, Some(1232), 1000);
    assert_eq!(count, 0);
}

/// Asks under `corefile` until the buffers have grown, then a thousand times more: how often that
/// allocated. The query is answered at once.
fn allocations_answered_at_once(corefile: &str) -> usize {
    let mut rig = Rig::new(corefile);
    let query = rig::query(1, NAME, A, Some(1232));
    let mut ask = |times| {
        for _ in 0..times {
            assert!(matches!(rig.receive(&query), Outcome::Reply));
        }
    };
    ask(4);
    let before = ALLOCATIONS.get();
    ask(1000);
    ALLOCATIONS.get() - before
}

#[test]
fn a_blocked_query_allocates_nothing() {
    let corefile = ".:53 {\n    acl {\n        block\n    }\n}\n";
    assert_eq!(allocations_answered_at_once(corefile), 0);
}

#[test]
fn a_refused_query_allocates_nothing() {
    assert_eq!(allocations_answered_at_once("other.test:53 {\n    whoami\n}\n"), 0);
}
