//! Command lines, and what becomes of them.

use super::table::FLAGS;
use super::*;
use crate::node::firewall::Wanted;
use std::time::Duration;

fn run(line: &str) -> Outcome {
    let arguments: Vec<String> =
        ["node-cache"].into_iter().chain(line.split_whitespace()).map(str::to_owned).collect();
    parse(&arguments)
}

fn options(line: &str) -> Options {
    match run(line) {
        Outcome::Run(options) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

/// Exit code and first line.
fn refusal(line: &str) -> (u8, String) {
    match run(line) {
        Outcome::Print { text, code, stream: Stream::Error } => {
            (code, text.lines().next().unwrap_or_default().to_owned())
        }
        Outcome::Fatal(text) | Outcome::Extra(text) => (1, text),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn defaults_are_node_caches() {
    let options = options("-localip 169.254.20.10,10.0.0.10");
    assert_eq!(options.local.text, "169.254.20.10,10.0.0.10");
    assert_eq!(options.local.addresses.len(), 2);
    assert_eq!(options.network.interface.as_deref(), Some("nodelocaldns"));
    assert_eq!(options.network.firewall, Wanted::Auto);
    assert!(options.network.teardown && options.network.hands_over);
    assert_eq!(options.network.sync_interval, Duration::from_secs(60));
    assert_eq!(options.endpoints.metrics, "0.0.0.0:9353");
    assert_eq!(options.endpoints.prometheus, ":9253");
    assert!(options.endpoints.tls.is_none());
    assert_eq!(options.files.base.to_str(), Some("/etc/coredns/Corefile.base"));
    assert_eq!(options.files.corefile.to_str(), Some("/etc/Corefile"));
    assert_eq!((options.dns_port, options.network.health_port), (53, 8080));
    assert_eq!(options.upstream_service, "kube-dns");
    assert_eq!(options.log_format, crate::app::log::Format::Text);
    assert!(options.warnings.is_empty());
}

#[test]
fn one_dash_or_two_and_equals_or_space_are_the_same() {
    for line in [
        "-localip ::1 -quiet",
        "--localip ::1 --quiet=true",
        "-localip=::1 -quiet=T",
        "--localip=bad -localip=::1 -quiet=1 --",
    ] {
        let options = options(line);
        assert!(options.quiet, "{line}");
        assert_eq!(options.local.text, "::1");
    }
    assert!(!options("-localip ::1 -quiet -quiet=F").quiet);
}

#[test]
fn the_two_port_flags_are_one() {
    assert_eq!(options("-localip ::1 -dns.port 5305 -p 5306").dns_port, 5306);
    assert_eq!(options("-localip ::1 -p 5306 -dns.port 5305").dns_port, 5305);
    assert_eq!(options("-localip ::1 -p 5306").dns_port, 5306);
}

#[test]
fn a_port_that_is_none_is_warned_about() {
    let options = options("-localip ::1 -dns.port=-5 -health-port=99999");
    assert_eq!((options.dns_port, options.network.health_port), (53, 8080));
    assert_eq!(options.warnings.len(), 2);
}

#[test]
fn setupiptables_false_means_no_rules_whatever_the_backend() {
    let network = |line: &str| options(&format!("-localip ::1 {line}"));
    for (line, wanted) in [
        ("--firewall=nftables", Wanted::Nftables),
        ("-firewall iptables -setupiptables", Wanted::Iptables),
        ("-firewall=none", Wanted::None),
        ("-setupiptables=false", Wanted::None),
    ] {
        let options = network(line);
        assert_eq!(options.network.firewall, wanted, "{line}");
        assert!(options.warnings.is_empty(), "{line}");
    }
    let options = network("-setupiptables=false -firewall=nftables");
    assert_eq!((options.network.firewall, options.warnings.len()), (Wanted::None, 1));
}

#[test]
fn conf_wins_over_corefile() {
    let path = |line: &str| options(line).files.corefile.display().to_string();
    assert_eq!(path("-localip ::1 -conf /a -corefile /b"), "/a");
    assert_eq!(path("-localip ::1 -corefile /b"), "/b");
}

#[test]
fn intervals_mean_what_they_say_and_nanoseconds_mean_seconds() {
    let seconds = |text: &str| {
        options(&format!("-localip ::1 -syncinterval={text}")).network.sync_interval.as_secs()
    };
    assert_eq!(seconds("60ns"), 60);
    assert_eq!(seconds("1ns"), 1);
    assert_eq!(seconds("10s"), 10);
    assert_eq!(seconds("60s"), 60);
    assert_eq!(seconds("1m0s"), 60);
    assert_eq!(seconds("0.5m"), 30);
    assert_eq!(seconds("60000000000ns"), 60);
    assert_eq!(seconds("1us"), 1000);
    assert_eq!(seconds("1m"), 60);
    assert_eq!(seconds("500ms"), 1);
    for text in ["0s", "-1s", "0"] {
        let (code, text) = refusal(&format!("-localip ::1 -syncinterval={text}"));
        assert_eq!(code, 1);
        assert!(text.contains("invalid syncinterval specified"), "{text}");
    }
}

#[test]
fn bad_syntax_exits_with_2_and_gos_text() {
    for (line, text) in [
        ("-nosuchflag", "flag provided but not defined: -nosuchflag"),
        ("--nosuch=1", "flag provided but not defined: -nosuch"),
        ("-setupiptables=maybe", "invalid boolean value \"maybe\" for -setupiptables: parse error"),
        ("-skipteardown=", "invalid boolean value \"\" for -skipteardown: parse error"),
        ("-localip", "flag needs an argument: -localip"),
        ("-syncinterval=60", "invalid value \"60\" for flag -syncinterval: parse error"),
        ("---localip=1", "bad flag syntax: ---localip=1"),
        ("-=1", "bad flag syntax: -=1"),
        ("-skipteardown=yes -h", "invalid boolean value \"yes\" for -skipteardown: parse error"),
    ] {
        assert_eq!(refusal(line), (2, text.to_owned()), "{line}");
    }
}

#[test]
fn bad_values_are_fatal() {
    for (line, text) in [
        ("", "invalid localip specified - \"\""),
        ("-localip=127.0.0.1,", "invalid localip specified - \"\""),
        ("-localip=foo", "invalid localip specified - \"foo\""),
        ("-localip=127.0.0.01", "invalid localip specified - \"127.0.0.01\""),
        (
            "-localip=127.0.0.1,::1",
            "unexpected IP Family for localIP - \"::1\", want IPv6=false: -dual-stack lets it hold both",
        ),
        (
            "-localip=::1,::ffff:127.0.0.1",
            "unexpected IP Family for localIP - \"127.0.0.1\", want IPv6=true: -dual-stack lets it hold both",
        ),
        ("-localip=::1 -dns.port=abc", "invalid port specified - \"abc\""),
        ("-localip=::1 --log-format=xml", "invalid log-format specified - \"xml\""),
        (
            "-localip=::1 -memory-limit=1Mi",
            "invalid memory-limit specified - \"1Mi\": 0, or 16Mi and more (k, M, G, Ki, Mi, Gi)",
        ),
        ("-localip=::1 -firewall=nft", "invalid firewall specified - \"nft\""),
        ("-localip=::1 -seccomp=true", "invalid seccomp specified - \"true\""),
        (
            "-localip=::1 -service-rewrite=::2=::3",
            "invalid service-rewrite specified - ::2=::3: the local address is none of -localip",
        ),
        (
            "-localip=::1 -service-rewrite=::2=::1 -firewall=iptables",
            "invalid service-rewrite specified - ::2=::1: it needs -firewall=nftables",
        ),
        ("-localip=::1 -health-port=x", "invalid healthcheck port specified - \"x\""),
        ("-version", "invalid localip specified - \"\""),
        (
            "-localip=::1 -tls-enabled -tls-min-version=SSL3",
            "invalid tls-min-version specified - \"SSL3\"",
        ),
    ] {
        let expected = format!("Error parsing flags - {text}, Exiting");
        assert_eq!(refusal(line), (1, expected), "{line}");
    }
}

#[test]
fn a_word_that_is_no_flag_ends_the_flags() {
    assert_eq!(
        refusal("-localip=::1 -setupiptables false -setupinterface false"),
        (1, "extra command line arguments: [false -setupinterface false]".to_owned())
    );
    assert_eq!(refusal("extra -localip=::1").0, 1);
    assert_eq!(refusal("-localip=::1 -- -x").0, 1);
}

#[test]
fn help_names_every_flag_and_exits_with_0() {
    for line in ["-h", "--help", "-help", "-quiet -h"] {
        let Outcome::Print { text, stream: Stream::Error, code: 0 } = run(line) else {
            panic!("{line}")
        };
        assert!(text.starts_with("Usage of node-cache:\n"));
        for flag in FLAGS {
            assert!(text.contains(&format!("\n  -{}", flag.name)), "{}", flag.name);
        }
        assert!(text.contains("(default \"/etc/coredns/Corefile.base\")"));
    }
}

#[test]
fn version_and_plugins_go_to_standard_output() {
    let print = |line: &str| match run(line) {
        Outcome::Print { text, stream: Stream::Out, code: 0 } => text,
        other => panic!("{other:?}"),
    };
    assert!(print("-localip=::1 -version").starts_with("CoreDNS-1.13.2\nlinux/"));
    let plugins = print("-localip=::1 -plugins");
    assert!(plugins.starts_with("acl\nany\nbind\n") && plugins.ends_with("\nwhoami\n\n"));
    assert!(!plugins.contains("kubernetes"));
    assert_eq!(refusal("-localip=::1 -version=maybe").0, 2);
    assert_eq!(refusal("-localip=::1 -version extra").0, 1);
}

#[test]
fn tls_of_the_metrics_endpoint_is_checked_when_enabled() {
    let tls = options("-localip=::1 -tls-enabled -tls-cert-file=/c -tls-client-auth-type=RequireAndVerifyClientCert")
        .endpoints
        .tls
        .unwrap();
    assert_eq!(tls.certificate.to_str(), Some("/c"));
    assert!(options("-localip=::1 -tls-min-version=SSL3").endpoints.tls.is_none());
}
