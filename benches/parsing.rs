//! Time to read: queries as they come in, responses, Corefiles. `cargo bench --bench parsing`.
#![allow(missing_docs)] // The harness's macros make items that have none.

use criterion::{Criterion, criterion_group, criterion_main};
use nodens::corefile::{MemorySurroundings, parse};
use nodens::dns::{Message, Query, Response};
use std::hint::black_box;

#[allow(dead_code)] // Shared with others: each takes its part.
mod rig;

const NAME: &[u8] = b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\0";

/// As in a cluster: three zones of the cluster with TCP upstream, the rest over UDP.
const NODE_LOCAL: &str = "cluster.local:53 {
    errors
    cache {
        success 9984 30
        denial 9984 5
    }
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . 10.96.0.11 {
        force_tcp
    }
    prometheus :9253
    health 169.254.20.10:8080
}
in-addr.arpa:53 ip6.arpa:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . 10.96.0.11 {
        force_tcp
    }
    prometheus :9253
}
.:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . 192.0.2.1 192.0.2.2
    prometheus :9253
}
";

fn messages(criterion: &mut Criterion) {
    for (what, size) in [("plain", None), ("with OPT", Some(1232))] {
        let wire = rig::query(1, NAME, 1, size);
        criterion.bench_function(&format!("Query::receive {what}"), |bencher| {
            bencher.iter(|| Query::receive(black_box(&wire)));
        });
    }
    let mut unusual = rig::query(1, NAME, 1, Some(1232));
    unusual.push(0);
    criterion.bench_function("Query::receive, brought into normal form", |bencher| {
        bencher.iter(|| Query::receive(black_box(&unusual)));
    });
    let query = rig::query(1, NAME, 1, None);
    for count in [1, 20] {
        let wire = rig::addresses(&query, count);
        criterion.bench_function(&format!("Message::parse {count} records"), |bencher| {
            bencher.iter(|| Message::parse(black_box(&wire)));
        });
        let mut response = Response::new();
        criterion.bench_function(&format!("Response::take {count} records"), |bencher| {
            bencher.iter(|| response.take(black_box(&wire), "forward"));
        });
    }
}

fn corefile(criterion: &mut Criterion) {
    let surroundings = MemorySurroundings::new();
    criterion.bench_function("corefile::parse node-local", |bencher| {
        bencher
            .iter(|| parse(black_box(NODE_LOCAL.as_bytes()), "Corefile", &|_| true, &surroundings));
    });
}

criterion_group!(parsing, messages, corefile);
criterion_main!(parsing);
