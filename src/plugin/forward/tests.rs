//! The handler's decisions and the directive's errors, as a Corefile author and a client see them.

use super::*;
use crate::corefile::MemorySurroundings;
use crate::dns::RecordType;
use crate::plugin::testing::{Bench, Outcome, always, name, nobody, query};

fn node() -> MemorySurroundings {
    MemorySurroundings::default()
}

fn a(qname: &str) -> Query<'static> {
    query(qname, RecordType::A)
}

/// The chain that `directives` make, one query through it, all upstreams answering with `rcode`.
fn asked(directives: &str, qname: &str, rcode: Rcode) -> Outcome {
    let mut bench = Bench::new();
    let chain = bench.load(directives, &node()).unwrap();
    bench.ask(&chain, a(qname), always(rcode, &[]))
}

/// The upstreams that were asked, each by its first address.
fn upstreams(outcome: &Outcome) -> Vec<String> {
    outcome.exchanges.iter().map(|exchange| exchange.upstreams.all[0].text.clone()).collect()
}

#[test]
fn names_below_from_are_forwarded_unless_excepted() {
    let directives = "forward example.test 192.0.2.1 {\n except no.example.test EXAMPLE.test\n}";
    for (qname, is_taken) in [
        ("example.test.", true),
        ("a.Example.test.", false),
        ("no.example.test.", false),
        ("x.no.example.test.", false),
        ("notexample.test.", false),
        ("other.test.", false),
    ] {
        let outcome = asked(directives, qname, Rcode::NOERROR);
        assert_eq!(outcome.exchanges.len() == 1, is_taken, "{qname}");
    }
    let outcome = asked("forward . 192.0.2.1 {\n except no.test\n}", "X.NO.TEST.", Rcode::NOERROR);
    assert!(outcome.exchanges.is_empty());
    let outcome = asked("forward . 192.0.2.1 {\n except no.test\n}", "xno.test.", Rcode::NOERROR);
    assert_eq!(outcome.exchanges.len(), 1);
}

#[test]
fn the_first_forward_that_matches_takes_the_query() {
    let directives = "forward test 192.0.2.1\n forward a.test 192.0.2.2\n forward . 192.0.2.3";
    for (qname, upstream) in [("a.test.", "192.0.2.1:53"), ("a.org.", "192.0.2.3:53")] {
        let outcome = asked(directives, qname, Rcode::NOERROR);
        assert_eq!(upstreams(&outcome), [upstream], "{qname}");
    }
}

#[test]
fn next_hands_the_query_to_the_forward_below() {
    let first = "forward . 192.0.2.1 {\n next NXDOMAIN refused\n}\n forward . 192.0.2.2";
    let outcome = asked(first, "a.test.", Rcode::NXDOMAIN);
    assert_eq!(upstreams(&outcome), ["192.0.2.1:53", "192.0.2.2:53"]);
    assert_eq!(outcome.response.rcode, Rcode::NXDOMAIN);
    let outcome = asked(first, "a.test.", Rcode::SERVFAIL);
    assert_eq!(upstreams(&outcome), ["192.0.2.1:53"]);
    let alone = asked("forward . 192.0.2.1 {\n next NXDOMAIN\n}", "a.test.", Rcode::NXDOMAIN);
    assert_eq!(
        (upstreams(&alone), alone.response.rcode),
        (vec!["192.0.2.1:53".to_owned()], Rcode::NXDOMAIN)
    );
    let nodata = "forward . 192.0.2.1 {\n next_on_nodata\n}\n forward . 192.0.2.2";
    assert_eq!(upstreams(&asked(nodata, "a.test.", Rcode::NOERROR)).len(), 2);
}

#[test]
fn the_transport_is_the_clients_unless_the_options_say() {
    for (option, client, transport) in [
        ("max_fails 2", Transport::Udp, Transport::Udp),
        ("max_fails 2", Transport::Tcp, Transport::Tcp),
        ("force_tcp", Transport::Udp, Transport::Tcp),
        ("prefer_udp", Transport::Tcp, Transport::Udp),
    ] {
        let mut bench = Bench::new();
        bench.client.transport = client;
        let chain = bench.load(&format!("forward . 192.0.2.1 {{\n {option}\n}}"), &node()).unwrap();
        let outcome = bench.ask(&chain, a("a.test."), always(Rcode::NOERROR, &[]));
        assert_eq!(outcome.exchanges[0].transport, transport, "{option} {client:?}");
        let limit = (client == Transport::Udp).then_some(512);
        assert_eq!(outcome.exchanges[0].udp_limit, limit);
    }
    let mut bench = Bench::new();
    let chain = bench.load("forward . 192.0.2.1\n forward . 192.0.2.2", &node()).unwrap();
    let outcome = bench.refresh(&chain, (0, a("a.test.")), always(Rcode::NOERROR, &[]));
    assert_eq!(outcome.exchanges[0].transport, Transport::Tcp, "a refresh has no client");
    assert_eq!(outcome.exchanges[0].udp_limit, None);
}

#[test]
fn a_client_takes_512_octets_whatever_less_it_says() {
    let mut bench = Bench::new();
    let chain = bench.load("forward . 192.0.2.1", &node()).unwrap();
    for (says, limit) in [(0, 512), (511, 512), (1232, 1232), (65_535, 65_535)] {
        let mut wire = a("a.test.").wire().to_vec();
        wire[11] = 1;
        wire.extend([0, 0, 41]);
        wire.extend(u16::to_be_bytes(says));
        wire.extend([0; 6]);
        let crate::dns::Received::Query(query) = Query::receive(&wire) else { panic!("{wire:?}") };
        let outcome = bench.ask(&chain, query, always(Rcode::NOERROR, &[]));
        assert_eq!(outcome.exchanges[0].udp_limit, Some(limit));
    }
}

#[test]
fn queries_beyond_max_concurrent_are_refused() {
    let mut bench = Bench::new();
    let chain = bench.load("forward . 192.0.2.1 {\n max_concurrent 1\n}", &node()).unwrap();
    let handler = chain[0].clone();
    let mut inner = None;
    let outcome = bench.ask(&chain, a("a.test."), |_, _| {
        // While this one is in flight another comes.
        let mut other = Bench::new();
        inner = Some(other.ask(std::slice::from_ref(&handler), a("b.test."), nobody));
    });
    let inner = inner.unwrap().response;
    assert_eq!(inner.rcode, Rcode::REFUSED);
    assert_eq!(inner.error.as_deref(), Some("concurrent queries exceeded maximum 1"));
    drop(outcome);
    let after = bench.ask(&chain, a("c.test."), always(Rcode::NOERROR, &[]));
    assert_eq!(after.exchanges.len(), 1, "the place was given back");
    let text = bench.metrics.text();
    assert!(text.contains("coredns_forward_max_concurrent_rejects_total 1"), "{text}");
}

#[test]
fn the_upstream_is_told_as_metadata() {
    let mut bench = Bench::new();
    let chain = bench.load("metadata\n forward . 192.0.2.1", &node()).unwrap();
    let outcome = bench.ask(&chain, a("a.test."), always(Rcode::NOERROR, &[]));
    assert_eq!(outcome.labels, [("forward/upstream", "192.0.2.53:53".to_owned())]);
}

#[test]
fn mistakes_are_told_in_the_words_of_coredns() {
    let sixteen: Vec<String> = (1..17).map(|last| format!("192.0.2.{last}")).collect();
    let sixteen = format!("forward . {}", sixteen.join(" "));
    let block = |option: &str| format!("forward . tls://127.0.0.1 {{\n{option}\n}}");
    for (directives, error) in [
        ("forward".to_owned(), "Wrong argument count or unexpected line ending after 'forward'"),
        ("forward .".to_owned(), "Wrong argument count or unexpected line ending after '.'"),
        ("forward foo..bar 127.0.0.1".to_owned(), "unable to normalize 'foo..bar'"),
        ("forward . not-an-ip".to_owned(), "not an IP address or file: \"not-an-ip\""),
        (sixteen, "more than 15 TOs configured: 16"),
        (
            "forward . https3://127.0.0.1:1 not-an-ip".to_owned(),
            "not an IP address or file: \"not-an-ip\"",
        ),
        ("forward . grpc://127.0.0.1 {\nfoo\n}".to_owned(), "unknown property 'foo'"),
        (block("foo"), "unknown property 'foo'"),
        (
            block("failfast_all_unhealthy_upstreams a b"),
            "Wrong argument count or unexpected line ending after 'b'",
        ),
        (block("force_tcp yes"), "Wrong argument count or unexpected line ending after 'yes'"),
        (block("max_fails"), "Wrong argument count or unexpected line ending after 'max_fails'"),
        (block("max_fails -1"), "strconv.ParseUint: parsing \"-1\": invalid syntax"),
        (block("policy fastest"), "unknown policy 'fastest'"),
        (block("expire -1s"), "expire can't be negative: -1s"),
        (block("expire 10"), "time: missing unit in duration \"10\""),
        (block("max_age 5s"), "max_age (5s) must not be less than expire (10s)"),
        (block("health_check often"), "time: invalid duration \"often\""),
        (block("health_check -5s"), "health_check can't be negative: -5000000000"),
        (block("health_check 1s foo"), "health_check: unknown option foo"),
        (block("health_check 1s domain a..b"), "health_check: invalid domain name a..b"),
        (block("read_timeout 0s"), "read_timeout must be positive: 0s"),
        (block("read_timeout -1s"), "read_timeout must be positive: -1s"),
        (block("source_address x"), "Error during parsing: invalid IP address: x"),
        (block("doh_method PUT"), "doh_method must be either POST or GET"),
        (block("max_concurrent -1"), "max_concurrent can't be negative: -1"),
        (block("tls a b c d"), "Wrong argument count or unexpected line ending after 'd'"),
        (block("tls a b c"), "no such file or directory"),
        (block("tls /x"), "error reading /x: open /x: no such file or directory"),
        (block("failover NOERROR"), "NoError cannot be used in failover"),
        (block("failover NOERROR FOO"), "NoError cannot be used in failover"),
        (block("failover FOO"), "FOO is not a valid rcode"),
        (block("failover BADVERS"), "BADVERS is not a valid rcode"),
        (block("next RCODE5"), "RCODE5 is not a valid rcode"),
        (
            "forward . tls://127.0.0.1%a.test {\n tls_servername b.test\n}".to_owned(),
            "both forward ('b.test') and proxy level ('a.test') TLS servernames are set for \
             upstream proxy 'tls://127.0.0.1:853'",
        ),
    ] {
        let text = Bench::new().load_error(&directives, &node());
        assert!(text.ends_with(error), "{directives}: {text}");
        assert!(text.contains("plugin/forward: ") && text.contains("Corefile:"), "{text}");
    }
}

#[test]
fn a_connection_may_be_kept_idle_for_as_long_as_it_lives() {
    let directive = "forward . 192.0.2.1 {\n expire 7s\n max_age 7s\n}";
    assert!(Bench::new().load(directive, &node()).is_ok());
}

#[test]
fn fifteen_upstreams_are_taken() {
    let fifteen: Vec<String> = (1..16).map(|last| format!("192.0.2.{last}")).collect();
    let directive = format!("forward . {}", fifteen.join(" "));
    assert!(Bench::new().load(&directive, &node()).is_ok());
}

#[test]
fn every_option_is_read() {
    let mut bench = Bench::new();
    let chain = bench
        .load(
            "forward . 127.0.0.9 {\n max_fails 0\n expire 20s\n policy sequential\n \
             health_check 5s no_rec domain a.test\n max_concurrent 1000\n prefer_udp\n \
             except a.org 10.0.0.0/8\n max_connect_attempts 3\n \
             failfast_all_unhealthy_upstreams\n failover SERVFAIL refused NotImpl\n next NXDOMAIN\n \
             max_age 30s\n max_idle_conns 4\n read_timeout 1s\n source_address 127.0.0.1\n}",
            &node(),
        )
        .unwrap();
    let outcome = bench.ask(&chain, a("a.test."), always(Rcode::NOERROR, &[]));
    let options = &outcome.exchanges[0].upstreams.options;
    let expected = Options {
        except: vec![name("a.org."), name("10.in-addr.arpa.")],
        prefer_udp: true,
        policy: Policy::Sequential,
        max_fails: 0,
        max_connect_attempts: 3,
        max_concurrent: 1000,
        failfast: true,
        next: vec![Rcode::NXDOMAIN],
        failover: vec![Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP],
        read_timeout: Duration::from_secs(1),
        probe: Probe {
            interval: Duration::from_secs(5),
            domain: name("a.test."),
            recursion: false,
        },
        keeping: Keeping {
            expire: Duration::from_secs(20),
            max_age: Some(Duration::from_secs(30)),
            max_idle: 4,
            source: Some([127, 0, 0, 1].into()),
        },
        ..Options::default()
    };
    assert_eq!(format!("{options:?}"), format!("{expected:?}"));
}

#[test]
fn a_slow_upstream_may_have_more_than_the_usual_two_seconds() {
    let mut bench = Bench::new();
    let directive = "forward . 127.0.0.9 {\n read_timeout 5s\n}";
    let chain = bench.load(directive, &node()).unwrap();
    let outcome = bench.ask(&chain, a("a.test."), always(Rcode::NOERROR, &[]));
    let options = &outcome.exchanges[0].upstreams.options;
    assert_eq!(options.read_timeout, Duration::from_secs(5));
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

#[test]
fn a_changed_resolv_conf_takes_effect_and_an_unusable_one_does_not() {
    let mut bench = Bench::new();
    bench.keys = vec![".:53".to_owned()];
    let files = MemorySurroundings::new().with_file(RESOLV_CONF, "nameserver 192.0.2.1\n");
    let directives = "bind 169.254.20.10\n forward . /etc/resolv.conf {\n max_concurrent 5\n}";
    let chain = bench.load(directives, &files).unwrap();
    let ask = |bench: &mut Bench| {
        let outcome = bench.ask(&chain, a("a.test."), always(Rcode::NOERROR, &[]));
        let upstreams = &outcome.exchanges[0].upstreams;
        assert_eq!(upstreams.options.max_concurrent, 5);
        upstreams.clone()
    };
    assert_eq!(chain[0].upkeep_every(), Some(Duration::from_secs(2)));
    let first = ask(&mut bench);
    bench.upkeep(&chain, &files);
    assert!(Arc::ptr_eq(&first, &ask(&mut bench)), "an unchanged file changes nothing");

    files.write(RESOLV_CONF, "nameserver 192.0.2.2\nnameserver 192.0.2.1\n");
    bench.upkeep(&chain, &files);
    let texts: Vec<_> = ask(&mut bench).all.iter().map(|one| one.text.clone()).collect();
    assert_eq!(texts, ["192.0.2.2:53", "192.0.2.1:53"]);
    assert_eq!(
        bench.journal.take(),
        ["[INFO] plugin/forward: upstreams changed: asking 192.0.2.2:53 192.0.2.1:53 now"]
    );

    for (content, why) in [
        ("", "no nameservers found"),
        ("nameserver 169.254.20.10\n", "nameserver 169.254.20.10 is this server itself"),
        (
            "nameserver ::ffff:169.254.20.10\n",
            "nameserver ::ffff:169.254.20.10 is this server itself",
        ),
    ] {
        files.write(RESOLV_CONF, content);
        bench.upkeep(&chain, &files);
        bench.upkeep(&chain, &files);
        assert_eq!(ask(&mut bench).all.len(), 2);
        assert_eq!(
            bench.journal.take(),
            [format!(
                "[WARNING] plugin/forward: /etc/resolv.conf changed and cannot be used, asking \
                 192.0.2.2:53 192.0.2.1:53 as before: {why}"
            )]
        );
    }
    let text = bench.metrics.text();
    let counted = "nodens_forward_file_failures_total{file=\"/etc/resolv.conf\"} 3";
    assert!(text.contains(counted), "{text}");
}

#[test]
fn a_file_that_named_nobody_from_the_start_may_go_on_so() {
    let mut bench = Bench::new();
    let files = MemorySurroundings::new().with_file(RESOLV_CONF, "");
    let chain = bench.load("forward . /etc/resolv.conf 192.0.2.1", &files).unwrap();
    for content in ["", "search a.test\n"] {
        files.write(RESOLV_CONF, content);
        bench.upkeep(&chain, &files);
        assert!(bench.journal.take().is_empty());
    }
}

#[test]
fn without_a_nameserver_that_is_an_address_queries_fail_until_there_is_one() {
    let mut bench = Bench::new();
    let files = MemorySurroundings::new().with_file(RESOLV_CONF, "nameserver dns.test\n");
    let chain = bench.load("forward . /etc/resolv.conf", &files).unwrap();
    assert_eq!(
        bench.journal.take(),
        [
            "[WARNING] plugin/forward: /etc/resolv.conf: nameserver dns.test is not an IP address",
            "[WARNING] plugin/forward: no upstreams: queries below '.' fail until a nameserver line \
             of /etc/resolv.conf is an IP address",
        ]
    );
    let outcome = bench.ask(&chain, a("a.test."), nobody);
    assert!(outcome.exchanges.is_empty());
    assert_eq!(outcome.response.rcode, Rcode::SERVFAIL);
    assert_eq!(outcome.response.error.as_deref(), Some("no nameserver is an IP address"));
    let text = bench.metrics.text();
    assert!(text.contains("coredns_forward_healthcheck_broken_total 1"), "{text}");

    files.write(RESOLV_CONF, "nameserver dns.test\nnameserver 192.0.2.1\n");
    bench.upkeep(&chain, &files);
    let outcome = bench.ask(&chain, a("a.test."), always(Rcode::NOERROR, &[]));
    assert_eq!(outcome.exchanges[0].upstreams.all[0].text, "192.0.2.1:53");
}

#[test]
fn addresses_alone_are_not_watched_and_those_named_twice_count_once() {
    let mut bench = Bench::new();
    let sixteen = "192.0.2.1 ".repeat(16);
    let chain = bench.load(&format!("forward . {sixteen} dns://192.0.2.1:53"), &node()).unwrap();
    assert_eq!(chain[0].upkeep_every(), None);
    let outcome = bench.ask(&chain, a("a.test."), always(Rcode::NOERROR, &[]));
    assert_eq!(upstreams(&outcome), ["192.0.2.1:53"]);
    assert_eq!(outcome.exchanges[0].upstreams.all.len(), 1);
}

#[test]
fn a_host_name_stands_for_its_addresses() {
    let addresses = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
    let node = node().with_host("dns.example.test", &addresses);
    for (directive, texts, server_name) in [
        ("forward . dns.example.test", ["192.0.2.1:53", "[2001:db8::1]:53"], None),
        ("forward . dns.example.test:5353", ["192.0.2.1:5353", "[2001:db8::1]:5353"], None),
        (
            "forward . dns.example.test {\n resolver 192.0.2.53 [::1]:54 ::1\n}",
            ["192.0.2.1:53", "[2001:db8::1]:53"],
            None,
        ),
        (
            "forward . tls://dns.example.test",
            ["192.0.2.1:853", "[2001:db8::1]:853"],
            Some("dns.example.test"),
        ),
        (
            "forward . tls://dns.example.test {\n tls_servername other.test\n}",
            ["192.0.2.1:853", "[2001:db8::1]:853"],
            Some("other.test"),
        ),
    ] {
        let mut bench = Bench::new();
        let chain = bench.load(directive, &node).unwrap();
        let outcome = bench.ask(&chain, a("a.test."), always(Rcode::NOERROR, &[]));
        let all = &outcome.exchanges[0].upstreams.all;
        assert_eq!(all.iter().map(|one| one.text.as_str()).collect::<Vec<_>>(), texts);
        let name = all[0].tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        assert_eq!(name, server_name, "{directive}");
    }
}

#[test]
fn a_host_name_that_does_not_resolve_is_told_and_what_is_none_is_no_address() {
    let place = "Corefile:2 - plugin/forward: ";
    for (directive, error) in [
        (
            "forward . dns.example.test",
            "failed to resolve \"dns.example.test\": no addresses found for \
             \"dns.example.test\": lookup dns.example.test: no such host",
        ),
        ("forward . localhost", "not an IP address or file: \"localhost\""),
        ("forward . 192.0.2.256", "not an IP address or file: \"192.0.2.256\""),
        ("forward . a..test", "not an IP address or file: \"a..test\""),
        ("forward . a.te/st", "not an IP address or file: \"a.te/st\""),
        (
            "forward . grpc://dns.test",
            "'grpc' is not supported as a destination protocol in forward: grpc://dns.test:443",
        ),
    ] {
        assert_eq!(Bench::new().load_error(directive, &node()), format!("{place}{error}"));
    }
    let directive = "forward . 192.0.2.1 {\n resolver dns.test\n}";
    let error =
        "Corefile:3 - plugin/forward: resolver must be an IP address or IP:port: \"dns.test\"";
    assert_eq!(Bench::new().load_error(directive, &node()), error);
}
