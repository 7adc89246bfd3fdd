//! Finds or makes a metric by description and labels; writes all as text.
//!
//! Owns every series of the process. Its lock is taken when a handle is made and at a scrape,
//! never while a query passes.

use super::cells::{Counter, Gauge, Histogram};
use super::exposition::{family, number};
use super::names::{Desc, Kind};
use super::{names, process};
use prometheus::proto;
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The greatest number of series of one metric. What comes after still counts, unseen: labels
/// come from the Corefile and from small fixed sets, so this is never reached by traffic alone.
pub const MOST_SERIES: usize = 10_000;

/// How many series of one metric may be left of zones and upstreams that are gone; a good many more are
/// there for a while, and then the oldest go. Each holds up to 3 KiB, and its lines are in every scrape.
pub const LEFT_SERIES: usize = 128;

/// All metrics of the process. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    workers: usize,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    families: BTreeMap<&'static str, Family>,
    /// The era that begun last.
    latest: Era,
    /// The era that is served: series of an earlier one that nobody holds are left over.
    served: Era,
}

/// When a series was last asked for: one begins with each loading of a Corefile.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Era(u64);

#[derive(Debug)]
struct Family {
    desc: &'static Desc,
    series: BTreeMap<Box<[Box<str>]>, Kept>,
    /// With this many series it is looked at what is left over.
    full: usize,
}

#[derive(Debug)]
struct Kept {
    series: Series,
    asked: Era,
}

#[derive(Debug, Clone)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Series {
    fn new(kind: Kind, workers: usize) -> Series {
        match kind {
            Kind::Counter => Series::Counter(Counter::new(workers)),
            Kind::Gauge => Series::Gauge(Gauge::new()),
            Kind::Histogram(bounds) => Series::Histogram(Histogram::new(workers, bounds)),
        }
    }

    /// Whether somebody has a handle beside the registry's own.
    fn is_held(&self) -> bool {
        match self {
            Series::Counter(counter) => counter.is_shared(),
            Series::Gauge(gauge) => gauge.is_shared(),
            Series::Histogram(histogram) => histogram.is_shared(),
        }
    }
}

impl Registry {
    /// A registry for `workers` threads with cells of their own, beside the shared one. The
    /// metrics that CoreDNS always shows are there from the start.
    pub fn new(workers: usize) -> Registry {
        let registry = Registry(Arc::new(Inner { workers, all: Mutex::default() }));
        for desc in names::ALWAYS {
            registry.series(desc, &[]);
        }
        for kind in names::SETUP_ERROR_KINDS {
            registry.counter(&names::SETUP_ERRORS, &[kind]);
        }
        for code in names::SCRAPE_CODES {
            registry.counter(&names::SCRAPES, &[code]);
        }
        registry
    }

    /// The counter with these label values, made at first use. Takes a lock: not for the hit path.
    pub fn counter(&self, desc: &'static Desc, labels: &[&str]) -> Counter {
        match self.series(desc, labels) {
            Series::Counter(counter) => counter,
            _ => {
                debug_assert!(false, "{} is no counter", desc.name);
                Counter::new(0)
            }
        }
    }

    /// A counter that shows no series before it counted something.
    pub fn lazy_counter(&self, desc: &'static Desc, labels: &[&str]) -> LazyCounter {
        LazyCounter {
            registry: self.clone(),
            desc,
            labels: labels.iter().map(|&value| value.into()).collect(),
            counter: OnceLock::new(),
        }
    }

    /// The gauge with these label values, made at first use.
    pub fn gauge(&self, desc: &'static Desc, labels: &[&str]) -> Gauge {
        match self.series(desc, labels) {
            Series::Gauge(gauge) => gauge,
            _ => {
                debug_assert!(false, "{} is no gauge", desc.name);
                Gauge::new()
            }
        }
    }

    /// The histogram with these label values, made at first use.
    pub fn histogram(&self, desc: &'static Desc, labels: &[&str]) -> Histogram {
        match self.series(desc, labels) {
            Series::Histogram(histogram) => histogram,
            _ => {
                debug_assert!(false, "{} is no histogram", desc.name);
                Histogram::new(0, &[])
            }
        }
    }

    /// Removes all series of a metric (`coredns_plugin_enabled` at a reload).
    pub fn reset(&self, desc: &'static Desc) {
        self.all().families.remove(desc.name);
    }

    /// A Corefile is being loaded: what is asked for from now on is of its era.
    pub fn begin_era(&self) -> Era {
        let mut all = self.all();
        all.latest.0 += 1;
        all.latest
    }

    /// The Corefile whose loading began `era` is served. Series that were asked for before and that nobody
    /// holds are left over from now on: [`LEFT_SERIES`] of each metric stay when there are many.
    pub fn serve_era(&self, era: Era) {
        self.all().served = era;
    }

    /// The text exposition format 0.0.4 of everything: families by name, series by label values,
    /// label names in alphabetical order; the process's own numbers are read now.
    pub fn text(&self) -> String {
        let mut families: Vec<proto::MetricFamily> = self
            .all()
            .families
            .values()
            .filter(|family| !family.series.is_empty())
            .map(Family::proto)
            .collect();
        families.extend(process::families());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::with_capacity(64 * 1024);
        // Writing into memory fails only for families without name or series; there are none.
        let _ = TextEncoder::new().encode(&families, &mut text);
        String::from_utf8(text)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    fn series(&self, desc: &'static Desc, labels: &[&str]) -> Series {
        debug_assert_eq!(desc.labels.len(), labels.len(), "labels of {}", desc.name);
        let mut all = self.all();
        let All { families, latest, served } = &mut *all;
        let family = families.entry(desc.name).or_insert_with(|| Family::new(desc));
        let key: Box<[Box<str>]> = labels.iter().map(|&value| value.into()).collect();
        if let Some(kept) = family.series.get_mut(&key) {
            kept.asked = *latest;
            return kept.series.clone();
        }
        if family.series.len() >= family.full {
            family.clear_left(*served);
        }
        let series = Series::new(desc.kind, self.0.workers);
        if family.series.len() < MOST_SERIES {
            family.series.insert(key, Kept { series: series.clone(), asked: *latest });
        }
        series
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counter whose series appears with its first count, as those of CoreDNS do.
#[derive(Debug)]
pub struct LazyCounter {
    registry: Registry,
    desc: &'static Desc,
    labels: Box<[Box<str>]>,
    counter: OnceLock<Counter>,
}

impl LazyCounter {
    /// Adds one. Takes the registry's lock the first time.
    pub fn increment(&self) {
        self.counter
            .get_or_init(|| {
                let labels: Vec<&str> = self.labels.iter().map(|value| &**value).collect();
                self.registry.counter(self.desc, &labels)
            })
            .increment();
    }

    /// The sum over all threads.
    pub fn value(&self) -> u64 {
        self.counter.get().map_or(0, Counter::value)
    }
}

impl Family {
    fn new(desc: &'static Desc) -> Family {
        Family { desc, series: BTreeMap::new(), full: 2 * LEFT_SERIES }
    }

    /// Removes what is left over from before `served`, but for the [`LEFT_SERIES`] that were asked for last.
    fn clear_left(&mut self, served: Era) {
        let is_left = |kept: &Kept| kept.asked < served && !kept.series.is_held();
        let mut left: Vec<Era> =
            self.series.values().filter(|kept| is_left(kept)).map(|kept| kept.asked).collect();
        left.sort_unstable();
        let mut surplus = left.len().saturating_sub(LEFT_SERIES);
        if let Some(last) = surplus.checked_sub(1).map(|last| left[last]) {
            self.series.retain(|_, kept| {
                let goes = surplus > 0 && kept.asked <= last && is_left(kept);
                surplus -= usize::from(goes);
                !goes
            });
        }
        self.full = self.series.len() + LEFT_SERIES;
    }

    fn proto(&self) -> proto::MetricFamily {
        let mut metrics: Vec<(Vec<proto::LabelPair>, proto::Metric)> = self
            .series
            .iter()
            .map(|(values, kept)| {
                let mut labels: Vec<proto::LabelPair> =
                    self.desc.labels.iter().zip(values).map(|(n, v)| label(n, v)).collect();
                labels.sort_by(|a, b| a.name().cmp(b.name()));
                (labels, metric(&kept.series))
            })
            .collect();
        metrics.sort_by(|(a, _), (b, _)| {
            a.iter().map(proto::LabelPair::value).cmp(b.iter().map(proto::LabelPair::value))
        });
        family(
            self.desc,
            metrics
                .into_iter()
                .map(|(labels, mut metric)| {
                    metric.set_label(labels);
                    metric
                })
                .collect(),
        )
    }
}

fn label(name: &str, value: &str) -> proto::LabelPair {
    let mut label = proto::LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn metric(series: &Series) -> proto::Metric {
    match series {
        Series::Counter(counter) => number(Kind::Counter, counter.value() as f64),
        Series::Gauge(gauge) => number(Kind::Gauge, gauge.value()),
        Series::Histogram(histogram) => {
            let reading = histogram.read();
            let mut total = 0;
            let mut buckets = Vec::with_capacity(reading.counts.len());
            for (bound, count) in histogram.bounds().iter().zip(&reading.counts) {
                total += count;
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(total);
                buckets.push(bucket);
            }
            let mut value = proto::Histogram::default();
            value.set_bucket(buckets);
            value.set_sample_count(total + reading.counts.last().copied().unwrap_or(0));
            value.set_sample_sum(reading.sum);
            let mut metric = proto::Metric::default();
            metric.set_histogram(value);
            metric
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static HITS: Desc =
        Desc { name: "a_total", help: "Help.", labels: &["zone", "kind"], kind: Kind::Counter };
    static TIMES: Desc = Desc {
        name: "b_seconds",
        help: "Times.",
        labels: &[],
        kind: Kind::Histogram(&[0.00025, 16000.0]),
    };

    fn lines(registry: &Registry, start: &str) -> Vec<String> {
        registry.text().lines().filter(|line| line.contains(start)).map(str::to_owned).collect()
    }

    #[test]
    fn the_same_labels_give_the_same_counter() {
        let registry = Registry::new(0);
        registry.counter(&HITS, &[".", "x"]).increment();
        registry.counter(&HITS, &[".", "x"]).increment();
        assert_eq!(registry.counter(&HITS, &[".", "x"]).value(), 2);
        assert_eq!(registry.counter(&HITS, &[".", "y"]).value(), 0);
    }

    #[test]
    fn text_has_help_type_and_sorted_labels() {
        let registry = Registry::new(0);
        registry.counter(&HITS, &["b.", "a"]).add(3);
        registry.counter(&HITS, &["a.", "\"z\\"]).add(4);
        assert_eq!(
            lines(&registry, "a_total"),
            [
                "# HELP a_total Help.",
                "# TYPE a_total counter",
                r#"a_total{kind="\"z\\",zone="a."} 4"#,
                r#"a_total{kind="a",zone="b."} 3"#,
            ]
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_at_infinity() {
        let registry = Registry::new(0);
        let times = registry.histogram(&TIMES, &[]);
        times.observe(0.0001);
        times.observe(1.5);
        times.observe(20000.0);
        assert_eq!(
            lines(&registry, "b_seconds"),
            [
                "# HELP b_seconds Times.",
                "# TYPE b_seconds histogram",
                r#"b_seconds_bucket{le="0.00025"} 1"#,
                r#"b_seconds_bucket{le="16000"} 2"#,
                r#"b_seconds_bucket{le="+Inf"} 3"#,
                "b_seconds_sum 20001.5001",
                "b_seconds_count 3",
            ]
        );
    }

    #[test]
    fn a_lazy_counter_shows_with_its_first_count() {
        let registry = Registry::new(0);
        let counter = registry.lazy_counter(&HITS, &[".", "x"]);
        assert!(lines(&registry, "a_total").is_empty());
        counter.increment();
        assert_eq!((counter.value(), lines(&registry, "a_total{").len()), (1, 1));
    }

    #[test]
    fn a_reset_removes_the_series() {
        let registry = Registry::new(0);
        registry.counter(&HITS, &[".", "x"]).increment();
        registry.reset(&HITS);
        assert!(lines(&registry, "a_total").is_empty());
    }

    #[test]
    fn series_of_zones_that_are_gone_do_not_pile_up() {
        let registry = Registry::new(0);
        let stays = registry.counter(&HITS, &["stays.", "x"]);
        stays.increment();
        let mut served = Vec::new();
        for round in 0..20 {
            let era = registry.begin_era();
            // What is set once, and held by nobody, is of the Corefile that is loaded.
            registry.counter(&HITS, &["set.", "x"]).increment();
            served = (0..50)
                .map(|zone| registry.counter(&HITS, &[&format!("{round}-{zone}."), "x"]))
                .collect();
            registry.serve_era(era);
            assert!(lines(&registry, "a_total{").len() < 400);
        }
        assert!(lines(&registry, "{").len() >= served.len() + LEFT_SERIES);
        for zone in ["stays.", "set.", "19-0.", "19-49.", "18-0.", "18-49."] {
            assert_eq!(lines(&registry, &format!("zone=\"{zone}\"")).len(), 1, "{zone}");
        }
        assert_eq!(lines(&registry, "zone=\"0-0.\"").len(), 0);
        assert_eq!(registry.counter(&HITS, &["set.", "x"]).value(), 20);
        assert_eq!(registry.counter(&HITS, &["stays.", "x"]).value(), 1);
    }

    #[test]
    fn a_corefile_that_does_not_load_leaves_the_series_of_the_one_that_serves() {
        let registry = Registry::new(0);
        registry.serve_era(registry.begin_era());
        for zone in 0..2 * LEFT_SERIES {
            registry.counter(&HITS, &[&zone.to_string(), "set"]).increment();
        }
        for failed in 0..2 * LEFT_SERIES {
            registry.begin_era();
            registry.counter(&HITS, &[&failed.to_string(), "tried"]);
        }
        assert_eq!(lines(&registry, "kind=\"set\"").len(), 2 * LEFT_SERIES);
    }

    #[test]
    fn what_coredns_always_shows_is_there_from_the_start() {
        let text = Registry::new(0).text();
        for line in [
            "coredns_panics_total 0",
            "coredns_reload_failed_total 0",
            "coredns_hosts_reload_timestamp_seconds 0",
            "coredns_forward_healthcheck_broken_total 0",
            "coredns_forward_max_concurrent_rejects_total 0",
            "coredns_health_request_failures_total 0",
            "coredns_health_request_duration_seconds_count 0",
            r#"coredns_nodecache_setup_errors_total{errortype="iptables_lock"} 0"#,
            r#"promhttp_metric_handler_requests_total{code="200"} 0"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line}");
        }
        assert!(!text.contains("reload_version_info"));
    }
}
