//! Every metric: name, help, labels, buckets (spec/metrics-9253.txt, spec/coredns.md §2.9, §3.7,
//! §4.7). The one table that dashboards depend on.

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
