//! Every metric: name, help, labels, buckets. The one table that dashboards depend on; docs/metrics.md is
//! made from it.

mod coredns;
mod own;
pub use coredns::*;
pub use own::*;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Counts values by upper bounds.
    Histogram(&'static [f64]),
}

/// A metric's description.
#[derive(Debug)]
pub struct Desc {
    /// The full name.
    pub name: &'static str,
    /// The HELP text, CoreDNS's where the metric is CoreDNS's.
    pub help: &'static str,
    /// The label names in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Counter, gauge or histogram with its buckets.
    pub kind: Kind,
}

const fn desc(
    name: &'static str,
    labels: &'static [&'static str],
    kind: Kind,
    help: &'static str,
) -> Desc {
    Desc { name, help, labels, kind }
}

/// CoreDNS's buckets for durations in seconds: 0.25 ms doubled fifteen times.
pub const TIME_BUCKETS: &[f64] = &[
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
    2.048, 4.096, 8.192,
];

/// CoreDNS's buckets for `health`'s self-poll in seconds: 0.25 ms times ten, four times.
pub const SLIM_TIME_BUCKETS: &[f64] = &[0.00025, 0.0025, 0.025, 0.25, 2.5];

/// CoreDNS's buckets for message sizes in octets.
pub const SIZE_BUCKETS: &[f64] = &[
    0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16000.0, 32000.0,
    48000.0, 64000.0,
];

/// What is shown from the start, at 0, without any directive asking for it.
pub static ALWAYS: &[&Desc] = &[
    &PANICS,
    &HEALTHCHECK_BROKEN,
    &MAX_CONCURRENT_REJECTS,
    &HEALTH_DURATION,
    &HEALTH_FAILURES,
    &RELOAD_FAILED,
    &HOSTS_RELOAD,
    &SCRAPES_IN_FLIGHT,
    &LOG_LINES_DROPPED,
    &NODE_REPAIRED,
    &QUERIES_IN_FLIGHT,
    &QUERIES_HELD_BACK,
    &QUERIES_JOINED,
    &MESSAGES_IGNORED,
    &REPLIES_LOST,
    &CONNECTIONS_EVICTED,
    &CONNECTIONS_REFUSED,
    &ACCEPT_ERRORS,
    &SLOW_READERS,
];
