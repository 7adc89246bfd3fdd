//! Instructions on the way of a query: hits, a miss down to upstream, an answer up into the cache.
//! Counted under callgrind, so a change of one percent is visible on a noisy machine:
//! `cargo bench --bench hit_path` (needs valgrind and gungraun-runner of the same version).
//!
//! The environment is emptied, the rig's random source has a fixed seed, and glibc is asked for the
//! copies of memcpy and its like that every x86-64 has. The compiler's version changes the counts.
#![allow(missing_docs)] // The harness's macros make items that have none.

use gungraun::{LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use nodens::dns::Transport;
use nodens::engine::{FlightKey, Flights, Role};
use std::hint::black_box;

mod rig;
use rig::{Outcome, Rig};

const NAME: &[u8] = b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\0";
const A: u16 = 1;

/// A server that holds `addresses` A records of the name, and the query for them.
fn holding(addresses: u8, size: Option<u16>, transport: Transport) -> (Rig, Vec<u8>) {
    let mut rig = Rig::new(rig::COREFILE);
    rig.set_transport(transport);
    let plain = rig::query(1, NAME, A, None);
    match rig.receive(&plain) {
        Outcome::Asked(parked) => assert!(rig.answer(parked, &rig::addresses(&plain, addresses))),
        other => panic!("a miss: {other:?}"),
    }
    let query = rig::query(2, NAME, A, size);
    // Once before counting: meters and buffers are made at first use.
    assert!(matches!(rig.receive(&query), Outcome::Reply));
    (rig, query)
}

fn udp() -> (Rig, Vec<u8>) {
    holding(1, None, Transport::Udp)
}

fn edns() -> (Rig, Vec<u8>) {
    holding(1, Some(1232), Transport::Udp)
}

fn tcp() -> (Rig, Vec<u8>) {
    holding(1, None, Transport::Tcp)
}

fn large_tcp() -> (Rig, Vec<u8>) {
    holding(100, Some(1232), Transport::Tcp)
}

fn too_large_for_udp() -> (Rig, Vec<u8>) {
    holding(100, None, Transport::Udp)
}

#[library_benchmark]
#[bench::udp(udp())]
#[bench::edns(edns())]
#[bench::tcp(tcp())]
#[bench::large_tcp(large_tcp())]
#[bench::too_large_for_udp(too_large_for_udp())]
fn hit((mut rig, query): (Rig, Vec<u8>)) -> (Rig, Vec<u8>, Outcome) {
    let outcome = rig.receive(black_box(&query));
    (rig, query, outcome)
}

/// A server that knows nothing but whose meters are made, and a query for another name.
fn empty() -> (Rig, Vec<u8>) {
    let (rig, _) = udp();
    (rig, rig::query(3, b"\x05other\x04test\0", A, Some(1232)))
}

#[library_benchmark]
#[bench::miss(empty())]
fn down_to_upstream((mut rig, query): (Rig, Vec<u8>)) -> (Rig, Vec<u8>, Outcome) {
    let outcome = rig.receive(black_box(&query));
    (rig, query, outcome)
}

/// A query that waits, with the upstream's answer.
fn waiting() -> (Rig, Outcome, Vec<u8>) {
    let (mut rig, query) = empty();
    let plain = rig::query(3, b"\x05other\x04test\0", A, None);
    let outcome = rig.receive(&query);
    (rig, outcome, rig::addresses(&plain, 4))
}

#[library_benchmark]
#[bench::store(waiting())]
fn up_into_the_cache((mut rig, asked, answer): (Rig, Outcome, Vec<u8>)) -> (Rig, Vec<u8>, bool) {
    let done = match asked {
        Outcome::Asked(parked) => rig.answer(parked, black_box(&answer)),
        _ => false,
    };
    assert!(done);
    (rig, answer, done)
}

/// A query for what is not cached, the upstream's answer, and a table of questions in flight.
fn unknown() -> (Rig, Vec<u8>, Vec<u8>, Flights<()>) {
    let (rig, query) = empty();
    let plain = rig::query(3, b"\x05other\x04test\0", A, None);
    // The table's shards are made at first use.
    (rig, query, rig::addresses(&plain, 1), Flights::new())
}

// All that is done for a miss but the sockets: down to upstream, into the table of questions in
// flight and out of it, up into the cache, the reply.
#[library_benchmark]
#[bench::whole(unknown())]
fn miss(
    (mut rig, query, answer, flights): (Rig, Vec<u8>, Vec<u8>, Flights<()>),
) -> (Rig, Vec<u8>, Vec<u8>, Flights<()>) {
    let Outcome::Asked(parked) = rig.receive(black_box(&query)) else { panic!("a miss") };
    let Some(life) = parked.waiting() else { panic!("it waits") };
    let key = FlightKey::new(1, Transport::Tcp, Some(512), life.query());
    assert!(flights.join(&key, || ()) == Role::Leader);
    assert!(flights.land(&key).is_empty());
    assert!(rig.answer(parked, black_box(&answer)));
    (rig, query, answer, flights)
}

library_benchmark_group!(
    name = hit_path,
    benchmarks = [hit, down_to_upstream, up_into_the_cache, miss]
);

main!(
    config = LibraryBenchmarkConfig::default()
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-SSSE3,-SSE4_1,-SSE4_2,-BMI2,-MOVBE");
    library_benchmark_groups = hit_path
);
