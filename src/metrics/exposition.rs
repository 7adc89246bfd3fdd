//! Families and values as the exposition format has them.

use super::names::{Desc, Kind};
use prometheus::proto;

/// A family with the description's name, help and type.
pub(super) fn family(desc: &Desc, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(desc.name.to_owned());
    family.set_help(desc.help.to_owned());
    family.set_field_type(match desc.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram(_) => proto::MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

/// A counter's or gauge's value without labels.
pub(super) fn number(kind: Kind, value: f64) -> proto::Metric {
    let mut metric = proto::Metric::default();
    if kind == Kind::Counter {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
