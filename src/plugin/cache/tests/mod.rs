//! What a client, an upstream and a scrape see of `cache`: queries through the whole handler, with a
//! clock that the test moves.

mod bounds;
mod directive;
mod keeping;
mod oracle;
mod prefetching;
mod refreshing;
mod storing;
mod travelling;

use crate::corefile::MemorySurroundings;
use crate::dns::{Class, Query, Rcode, Received, RecordType, Response};
use crate::metrics::Registry;
use crate::plugin::Chain;
use crate::plugin::testing::{Bench, Outcome, always, nobody, query, respond};
use std::time::Duration;

const A: RecordType = RecordType::A;
/// `serve_stale` with short TTLs.
const STALE: &str = "cache {\n success 9984 3600 1\n denial 9984 1800 1\n serve_stale 6s\n}";
const SOA: &str = "authority: test. 60 IN SOA ns.test. hm.test. 7 3600 600 86400 10";

/// A bench with one `cache` directive.
struct Cached {
    bench: Bench,
    chain: Chain,
}

impl Cached {
    fn new(directive: &str) -> Cached {
        let mut bench = Bench::new();
        let chain = bench.load(directive, &MemorySurroundings::default()).unwrap();
        Cached { bench, chain }
    }

    fn ask(&mut self, query: Query<'_>, below: impl FnMut(&Query<'_>, &mut Response)) -> Outcome {
        self.bench.ask(&self.chain, query, below)
    }

    /// An A query that goes below.
    fn miss(&mut self, qname: &str, rcode: Rcode, records: &[&str]) -> Outcome {
        let mut asked = false;
        let outcome = self.ask(query(qname, A), |query, response| {
            asked = true;
            respond(query, response, rcode, records);
        });
        assert!(asked, "{qname} was answered from the cache");
        outcome
    }

    /// An A query that does not.
    fn hit(&mut self, qname: &str) -> Outcome {
        self.ask(query(qname, A), nobody)
    }

    /// Whether an A query goes below; what it finds there is REFUSED, which is never kept.
    fn is_kept(&mut self, qname: &str) -> bool {
        let mut asked = false;
        self.ask(query(qname, A), |_, response| {
            asked = true;
            response.fail(Rcode::REFUSED, None);
        });
        !asked
    }

    fn refresh(&mut self, wish: &Outcome, rcode: Rcode, records: &[&str]) {
        let [(depth, query)] = wish.refreshes.as_slice() else {
            panic!("{} wishes for a refresh", wish.refreshes.len());
        };
        self.bench.refresh(&self.chain, (*depth, query.clone()), always(rcode, records));
    }

    fn failed_refresh(&mut self, wish: &Outcome) {
        let (depth, query) = wish.refreshes[0].clone();
        self.bench.refresh(&self.chain, (depth, query), |_, response| {
            response.fail(Rcode::SERVFAIL, Some("i/o timeout".into()));
        });
    }

    fn wait(&mut self, seconds: f64) {
        self.bench.advance(Duration::from_secs_f64(seconds));
    }

    fn upkeep(&self) {
        self.bench.upkeep(&self.chain, &MemorySurroundings::default());
    }

    /// The samples of a metric: `LABELS VALUE`.
    fn samples(&self, metric: &str) -> Vec<String> {
        samples(&self.bench.metrics, metric)
    }

    fn value(&self, metric: &str) -> f64 {
        self.samples(metric)
            .iter()
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

fn samples(registry: &Registry, metric: &str) -> Vec<String> {
    registry
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{').map(str::to_owned))
        .collect()
}

/// The TTLs of all records.
fn ttls(outcome: &Outcome) -> Vec<u32> {
    outcome.response.message().unwrap().records().map(|record| record.ttl).collect()
}

/// A query from a whole message: flag word, name as spelled, DO when `dnssec_ok` is given.
fn raw_query(word: u16, spelled: &[u8], qclass: Class, dnssec_ok: Option<bool>) -> Query<'static> {
    let mut wire = vec![0xab, 0xcd];
    wire.extend(word.to_be_bytes());
    wire.extend([0, 1, 0, 0, 0, 0, 0, u8::from(dnssec_ok.is_some())]);
    wire.extend(spelled);
    wire.extend(A.0.to_be_bytes());
    wire.extend(qclass.0.to_be_bytes());
    if let Some(dnssec_ok) = dnssec_ok {
        wire.extend([0, 0, 41, 4, 208, 0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
    match Query::receive(&wire) {
        Received::Query(query) => query.into_owned(),
        other => panic!("not a query: {other:?}"),
    }
}

const A_TEST: &[u8] = b"\x01a\x04test\0";

fn with_flags(extra: u16) -> impl FnMut(&Query<'_>, &mut Response) {
    move |query, response| {
        respond(query, response, Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"]);
        response.set_flags(response.flags() | extra);
    }
}
