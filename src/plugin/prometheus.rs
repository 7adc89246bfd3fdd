//! `prometheus`: counts queries and responses of its block, and asks the app for `/metrics`
//! (docs/plugins/prometheus.md).
//!
//! Owns the labels of the server metrics. Handles are found once, then moved without a lock.
//! Never counts a query that reached no block: for those the server core keeps a [`Tally`] of its
//! own with the zone [`DROPPED`].

use super::{Context, Handler, Level, PerServer, Service, Setup, Turn, split_host_port};
use crate::corefile::CorefileError;
use crate::dns::{Name, Query, Rcode, RecordType, Response, Transport, Written};
use crate::metrics::{Counter, Histogram, Registry, names};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The `zone` label of queries that reached no server block.
pub const DROPPED: &str = "dropped";

/// The types that have a label of their own; all others are `other`.
const TYPES: [RecordType; 18] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::ANY,
    RecordType::AXFR,
    RecordType::CNAME,
    RecordType::DNSKEY,
    RecordType::DS,
    RecordType::HTTPS,
    RecordType::IXFR,
    RecordType::MX,
    RecordType::NS,
    RecordType::NSEC,
    RecordType::NSEC3,
    RecordType::PTR,
    RecordType::RRSIG,
    RecordType::SOA,
    RecordType::SRV,
    RecordType::TXT,
];

/// The `plugin` labels that have a place; others are looked up.
const PLUGINS: [&str; 15] = [
    "",
    "cache",
    "loadbalance",
    "forward",
    "dns64",
    "template",
    "hosts",
    "whoami",
    "rewrite",
    "acl",
    "any",
    "chaos",
    "header",
    "local",
    "minimal",
];

/// Rcodes below this have a place; others are looked up.
const RCODES: usize = 24;

/// What the metrics say of one query and its response.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// How the query came.
    pub transport: Transport,
    /// Who asked.
    pub client: IpAddr,
    /// QTYPE; `None` for a query without a question.
    pub qtype: Option<RecordType>,
    /// The DO bit.
    pub wants_dnssec: bool,
    /// Octets of the query as received.
    pub query_size: usize,
    /// Octets of the response, uncompressed, before truncation and without the client's OPT; 0
    /// when no handler wrote one.
    pub response_size: usize,
    /// From receiving to here.
    pub took: Duration,
    /// The rcode of the response.
    pub rcode: Rcode,
    /// The directive that the response is ascribed to; "" when no handler wrote one.
    pub plugin: &'static str,
}

/// The handles of one server and zone, each made at its first use: no series shows before it
/// counted something.
#[derive(Debug)]
pub struct Tally {
    metrics: Registry,
    server: Box<str>,
    zone: Box<str>,
    requests: [OnceLock<Counter>; 2 * 2 * (TYPES.len() + 1)],
    duration: OnceLock<Histogram>,
    query_size: [OnceLock<Histogram>; 2],
    response_size: [OnceLock<Histogram>; 2],
    wants_dnssec: OnceLock<Counter>,
    responses: Box<[OnceLock<Counter>]>,
}

impl Tally {
    /// Nothing counted yet; `server` is the listener's label, `zone` a zone's text with its dot, or
    /// [`DROPPED`].
    pub fn new(metrics: &Registry, server: &str, zone: &str) -> Tally {
        Tally {
            metrics: metrics.clone(),
            server: server.into(),
            zone: zone.into(),
            requests: [const { OnceLock::new() }; 2 * 2 * (TYPES.len() + 1)],
            duration: OnceLock::new(),
            query_size: [const { OnceLock::new() }; 2],
            response_size: [const { OnceLock::new() }; 2],
            wants_dnssec: OnceLock::new(),
            responses: (0..RCODES * PLUGINS.len()).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Counts one query and its response in all families.
    pub fn count(&self, seen: &Observation) {
        let Tally { metrics, server, zone, .. } = self;
        let proto = usize::from(seen.transport.client_word() == "tcp");
        let proto_word = seen.transport.client_word();
        let (family, family_word) = match seen.client.to_canonical() {
            IpAddr::V4(_) => (0, "1"),
            IpAddr::V6(_) => (1, "2"),
        };
        let (qtype, type_word) = type_place(seen.qtype);
        self.requests[(proto * 2 + family) * (TYPES.len() + 1) + qtype]
            .get_or_init(|| {
                let labels = [server, zone, "", proto_word, family_word, type_word];
                metrics.counter(&names::REQUESTS, &labels)
            })
            .increment();
        self.duration
            .get_or_init(|| metrics.histogram(&names::REQUEST_DURATION, &[server, zone, ""]))
            .observe(seen.took.as_secs_f64());
        self.query_size[proto]
            .get_or_init(|| {
                metrics.histogram(&names::REQUEST_SIZE, &[server, zone, "", proto_word])
            })
            .observe(seen.query_size as f64);
        self.response_size[proto]
            .get_or_init(|| {
                metrics.histogram(&names::RESPONSE_SIZE, &[server, zone, "", proto_word])
            })
            .observe(seen.response_size as f64);
        if seen.wants_dnssec {
            self.wants_dnssec
                .get_or_init(|| metrics.counter(&names::DO_REQUESTS, &[server, zone, ""]))
                .increment();
        }
        self.count_response(seen.rcode, seen.plugin);
    }

    fn count_response(&self, rcode: Rcode, plugin: &str) {
        let make = || match rcode.word() {
            Some(word) => self.response_counter(word, plugin),
            None => self.response_counter(&format!("RCODE{}", rcode.0), plugin),
        };
        let place = PLUGINS.iter().position(|word| *word == plugin);
        match place {
            Some(place) if usize::from(rcode.0) < RCODES => self.responses
                [usize::from(rcode.0) * PLUGINS.len() + place]
                .get_or_init(make)
                .increment(),
            _ => make().increment(),
        }
    }

    fn response_counter(&self, rcode: &str, plugin: &str) -> Counter {
        self.metrics.counter(&names::RESPONSES, &[&self.server, &self.zone, "", rcode, plugin])
    }
}

fn type_place(qtype: Option<RecordType>) -> (usize, &'static str) {
    qtype
        .and_then(|qtype| TYPES.iter().position(|known| *known == qtype))
        .and_then(|place| Some((place, TYPES[place].word()?)))
        .unwrap_or((TYPES.len(), "other"))
}

/// The running part.
#[derive(Debug)]
struct Counting {
    metrics: Registry,
    /// The block's zones, longest first, so that the first match is the longest; the root last.
    zones: Arc<[(Name, Box<str>)]>,
    tallies: PerServer<Box<[Tally]>>,
}

/// CoreDNS 1.13.2 ascribes a response to the outermost handler below that had it in its hands.
fn plugin(response: &Response) -> &'static str {
    match response.written {
        Written::Nothing => "",
        Written::Message => response.writer,
    }
}

impl Handler for Counting {
    fn word(&self) -> &'static str {
        "prometheus"
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let tallies = self.tallies.get(context.server, |server| {
            self.zones.iter().map(|(_, text)| Tally::new(&self.metrics, server, text)).collect()
        });
        let place = self.zones.iter().position(|(zone, _)| query.name().is_in(zone));
        if let Some(tally) = tallies.get(place.unwrap_or(self.zones.len().saturating_sub(1))) {
            tally.count(&Observation {
                transport: context.client.transport,
                client: context.client.address.ip(),
                qtype: Some(query.qtype()),
                wants_dnssec: query.wants_dnssec(),
                query_size: query.received_size(),
                response_size: response.uncompressed_size(),
                took: context.now.monotonic.saturating_sub(context.received.monotonic),
                rcode: response.rcode,
                plugin: plugin(response),
            });
        }
        Turn::Up
    }
}

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; Go's text about the address (`address …:
/// missing port in address`); `tls block already specified`; `this plugin can only be used once per
/// Server Block`, also for an unknown word in its block. A wrong `tls` file is none: it is a line in the journal, and no
/// metrics are served.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let mut address = "localhost:9153";
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    match dispenser.remaining_args().as_slice() {
        [] => {}
        [given] => {
            if let Err(why) = split_host_port(given) {
                return Err(dispenser.plain_err(why));
            }
            address = given;
        }
        _ => return Err(dispenser.arg_err()),
    }
    let mut web_config = None;
    while dispenser.next_block() {
        match dispenser.val() {
            "tls" if web_config.is_some() => {
                return Err(dispenser.err("tls block already specified"));
            }
            "tls" => match dispenser.remaining_args().as_slice() {
                [path] => web_config = Some(*path),
                _ => return Err(dispenser.arg_err()),
            },
            // Of Go's runtime, in later releases: there is none here.
            "runtime_metrics" if dispenser.remaining_args().is_empty() => {}
            "runtime_metrics" => return Err(dispenser.arg_err()),
            // A release without blocks takes each of their lines for another `prometheus`.
            _ => return Err(dispenser.once_err()),
        }
    }
    if dispenser.next() {
        return Err(dispenser.once_err());
    }
    let tls = web_config.map(|path| super::tls::web_config(Path::new(path), setup.surroundings));
    let address = address.to_owned();
    match tls.transpose() {
        Ok(tls) => {
            setup.services.push(Service::Prometheus { address, tls: tls.map(Arc::new) });
        }
        // As in CoreDNS: no reason not to serve DNS.
        Err(why) => setup.journal.line(
            Level::Error,
            format_args!("plugin/prometheus: Failed to start metrics handler: {why}"),
        ),
    }
    let mut zones: Vec<(Name, Box<str>)> =
        setup.block.zones().map(|zone| (zone.clone(), zone.to_string().into())).collect();
    zones.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.labels().count()));
    zones.dedup_by(|(a, _), (b, _)| a == b);
    if !zones.iter().any(|(zone, _)| zone.is_root()) {
        // What matches no key of the block is labelled with the root.
        zones.push((Name::root(), ".".into()));
    }
    let counting =
        Counting { metrics: setup.metrics.clone(), zones: zones.into(), tallies: PerServer::new() };
    setup.block.add(counting);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::Class;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn counted(bench: &Bench, start: &str) -> Vec<String> {
        let text = bench.metrics.text();
        text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
    }

    #[test]
    fn a_query_moves_all_families_under_its_longest_zone() {
        let mut bench = Bench::new();
        bench.keys = vec!["test:53".to_owned(), "a.test:53".to_owned()];
        let chain = bench.load("prometheus :9253", &MemorySurroundings::new()).unwrap();
        for (qname, qtype) in
            [("x.a.test.", RecordType::A), ("b.test.", RecordType::NAPTR), ("c.", RecordType::A)]
        {
            let query = Query::new(&name(qname), qtype, Class::IN);
            bench.ask(&chain, query, |query, response| {
                response.start(query, Rcode::NXDOMAIN, 0, "forward");
            });
        }
        assert_eq!(
            counted(&bench, "coredns_dns_requests_total"),
            [
                r#"coredns_dns_requests_total{family="1",proto="udp",server="dns://127.0.0.53:53",type="A",view="",zone="."} 1"#,
                r#"coredns_dns_requests_total{family="1",proto="udp",server="dns://127.0.0.53:53",type="A",view="",zone="a.test."} 1"#,
                r#"coredns_dns_requests_total{family="1",proto="udp",server="dns://127.0.0.53:53",type="other",view="",zone="test."} 1"#,
            ]
        );
        assert_eq!(
            counted(&bench, "coredns_dns_responses_total").last().unwrap(),
            r#"coredns_dns_responses_total{plugin="forward",rcode="NXDOMAIN",server="dns://127.0.0.53:53",view="",zone="test."} 1"#
        );
        assert!(counted(&bench, "coredns_dns_do_requests_total").is_empty());
    }

    #[test]
    fn a_response_that_no_handler_wrote_has_no_plugin_and_no_size() {
        let mut bench = Bench::new();
        let chain = bench.load("prometheus", &MemorySurroundings::new()).unwrap();
        let query = Query::new(&name("a.test."), RecordType::A, Class::IN);
        bench.ask(&chain, query, |_, response| response.fail(Rcode::SERVFAIL, None));
        assert_eq!(
            counted(&bench, "coredns_dns_responses_total"),
            [
                r#"coredns_dns_responses_total{plugin="",rcode="SERVFAIL",server="dns://127.0.0.53:53",view="",zone="."} 1"#
            ]
        );
        assert_eq!(
            counted(&bench, "coredns_dns_response_size_bytes_sum"),
            [
                r#"coredns_dns_response_size_bytes_sum{proto="udp",server="dns://127.0.0.53:53",view="",zone="."} 0"#
            ]
        );
    }

    #[test]
    fn unnamed_rcodes_are_counted_by_number() {
        let metrics = Registry::new(0);
        Tally::new(&metrics, "s", DROPPED).count(&Observation {
            transport: Transport::Tcp,
            client: "::ffff:192.0.2.1".parse().unwrap(),
            qtype: None,
            wants_dnssec: true,
            query_size: 12,
            response_size: 12,
            took: Duration::from_millis(1),
            rcode: Rcode(3841),
            plugin: "",
        });
        let text = metrics.text();
        for line in [
            r#"coredns_dns_responses_total{plugin="",rcode="RCODE3841",server="s",view="",zone="dropped"} 1"#,
            r#"coredns_dns_requests_total{family="1",proto="tcp",server="s",type="other",view="",zone="dropped"} 1"#,
            r#"coredns_dns_do_requests_total{server="s",view="",zone="dropped"} 1"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line}");
        }
    }

    #[test]
    fn the_cache_in_the_block_is_what_responses_are_ascribed_to() {
        let mut bench = Bench::new();
        let chain = bench.load("prometheus\nerrors\ncache 30", &MemorySurroundings::new()).unwrap();
        let query = Query::new(&name("a.test."), RecordType::A, Class::IN);
        bench.ask(&chain, query, |query, response| {
            response.start(query, Rcode::NOERROR, 0, "hosts");
        });
        assert!(counted(&bench, "coredns_dns_responses_total")[0].contains(r#"plugin="cache""#));
    }

    #[test]
    fn the_option_for_gos_runtime_is_taken() {
        let directive = "prometheus :1 {\n runtime_metrics\n}";
        assert!(Bench::new().load(directive, &MemorySurroundings::new()).is_ok());
    }

    #[test]
    fn a_web_configuration_that_cannot_be_used_is_said_and_leaves_no_endpoint() {
        let mut bench = Bench::new();
        let directive = "prometheus :1 {\n tls /none.yml\n}";
        bench.load(directive, &MemorySurroundings::new()).unwrap();
        assert!(bench.services.is_empty());
        assert_eq!(
            bench.journal.take(),
            [
                "[ERROR] plugin/prometheus: Failed to start metrics handler: open /none.yml: no such \
              file or directory"
            ]
        );
        let error =
            Bench::new().load_error("prometheus {\n tls a\n tls b\n}", &MemorySurroundings::new());
        assert!(error.ends_with("tls block already specified"), "{error}");
    }

    #[test]
    fn a_response_is_ascribed_to_the_outermost_handler_that_had_it_in_its_hands() {
        for (directives, plugin) in [
            ("cache 30 test.", "cache"),
            ("cache 30 other.test.", "forward"),
            ("cache 30\nloadbalance", "loadbalance"),
            ("rewrite name a.test b.test", "rewrite"),
            ("rewrite name b.test a.test", "forward"),
            ("rewrite continue edns0 nsid set", "forward"),
            ("dns64 {\n allow_ipv4\n}", "forward"),
        ] {
            let mut bench = Bench::new();
            let directives = format!("prometheus\n{directives}");
            let chain = bench.load(&directives, &MemorySurroundings::new()).unwrap();
            let query = Query::new(&name("a.test."), RecordType::A, Class::IN);
            bench.ask(&chain, query, |query, response| {
                response.start(query, Rcode::NOERROR, 0, "forward");
            });
            let line = &counted(&bench, "coredns_dns_responses_total")[0];
            assert!(line.contains(&format!("plugin=\"{plugin}\"")), "{directives}: {line}");
        }
    }

    #[test]
    fn wrong_arguments_are_errors_with_their_place() {
        for (directive, text) in [
            (
                "prometheus 9153",
                "Corefile:2 - plugin/prometheus: address 9153: missing port in address",
            ),
            (
                "prometheus :1 :2",
                "plugin/prometheus: Corefile:2 - Error during parsing: Wrong argument count or unexpected line ending after ':2'",
            ),
            (
                "prometheus :1\nprometheus :2",
                "Corefile:3 - plugin/prometheus: this plugin can only be used once per Server Block",
            ),
            (
                "prometheus {\n x\n}",
                "Corefile:3 - plugin/prometheus: this plugin can only be used once per Server Block",
            ),
        ] {
            assert_eq!(Bench::new().load_error(directive, &MemorySurroundings::new()), text);
        }
    }
}
