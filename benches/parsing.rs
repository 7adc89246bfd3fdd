//! Time to read: queries as they come in, responses, Corefiles, a kept cache. `cargo bench --bench parsing`.
#![allow(missing_docs)] // The harness's macros make items that have none.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use nodens::corefile::{MemorySurroundings, parse};
use nodens::dns::{Message, Query, Rcode, Response};
use nodens::plugin::cache::codec::{FileWriter, StoreId, decode, read};
use nodens::plugin::cache::{Kept, KeptAs};
use std::hint::black_box;

mod rig;
use rig::Rig;

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

const LARGE: &str = ".:53 {
    cache 30 {
        success 20000
    }
    forward . 192.0.2.53
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

/// What a start does with the file of the kept cache.
fn kept_cache(criterion: &mut Criterion) {
    const ENTRIES: u16 = 10_000;
    let unix = Rig::new(rig::COREFILE).now.unix;
    let store = StoreId::of("bench");
    let mut writer = FileWriter::new(Vec::new(), u64::MAX).expect("memory takes it");
    for number in 0..ENTRIES {
        let label = format!("\x06n{number:05}");
        let name = [label.as_bytes(), &NAME[1 + usize::from(NAME[0])..]].concat();
        let kept = Kept {
            message: rig::addresses(&rig::query(0, &name, 1, None), 2).into(),
            rcode: Rcode::NOERROR,
            kind: KeptAs::Success,
            dnssec_ok: false,
            checking_disabled: false,
            ttl: 30,
            age: 1000,
            hits: 1,
            last_hit: None,
        };
        writer.put(store, &kept, unix).expect("memory takes it");
    }
    let (file, _) = writer.finish().expect("memory takes it");
    let load = |rig: Rig| {
        let store = rig.store();
        let mut entries = 0;
        // Twice, as the start does it: nothing is taken before all is known to be whole.
        read(&file[..], u64::MAX, |_, _| Ok(())).expect("it is whole");
        read(&file[..], u64::MAX, |_, records| {
            let now = rig.now;
            decode(records, now.unix, |kept| {
                entries += u16::from(store.import(&kept, now.monotonic));
            })
        })
        .expect("it is whole");
        assert_eq!(entries, ENTRIES);
        (rig, store)
    };
    criterion.bench_function("kept cache of 10,000 entries", |bencher| {
        bencher.iter_batched(|| Rig::new(LARGE), load, BatchSize::PerIteration);
    });
}

criterion_group!(parsing, messages, corefile, kept_cache);
criterion_main!(parsing);
