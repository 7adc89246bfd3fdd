//! The command line: node-cache's flags in Go's syntax.
//!
//! Owns the table of flags (usage text and parser come from it), the translation of Go's syntax
//! for clap, and the checks of values. A pure function of the arguments: nothing is touched before
//! the whole line is known to be good, `-version` and `-plugins` included.

use super::options::{self, Options};
use super::version;
use crate::plugin::TABLE;
use clap::{Arg, ArgMatches, Command};

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Serve.
    Run(Box<Options>),
    /// Write `text` as it is and exit with `code`.
    Print {
        /// Ends in a newline.
        text: String,
        /// Where it goes.
        stream: Stream,
        /// 0, 1 or 2.
        code: u8,
    },
    /// Log at FATAL (`Error parsing flags - …, Exiting`) and exit with 1.
    Fatal(String),
}

/// An output of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, or `=BOOL`.
    Switch(bool),
    /// Any text.
    Text(&'static str),
    /// A Go duration.
    Duration(&'static str),
}

struct Flag {
    name: &'static str,
    kind: Kind,
    /// What it is for; a word in backquotes names its value.
    help: &'static str,
}

const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, kind, help }
}

use Kind::{Duration, Switch, Text};

/// All flags, in the order of the usage text.
static FLAGS: &[Flag] = &[
    flag(
        "basecorefile",
        Text("/etc/coredns/Corefile.base"),
        "the `path` of the template that the Corefile is made of",
    ),
    flag(
        "cache-snapshot",
        Text(""),
        "the `path` of a file that keeps the cache over a restart; none when empty",
    ),
    flag(
        "conf",
        Text(""),
        "the `path` that the Corefile is written to and loaded from; -corefile when empty",
    ),
    flag("corefile", Text("/etc/Corefile"), "the `path` of the Corefile when -conf is not given"),
    flag(
        "dns.port",
        Text("53"),
        "the default `port` of server blocks, and the port of the firewall rules",
    ),
    flag(
        "drop-capabilities",
        Switch(true),
        "give up the capabilities that are not needed any more once queries are answered",
    ),
    flag(
        "dual-stack",
        Switch(false),
        "let -localip hold addresses of both families, which node-cache refuses",
    ),
    flag(
        "firewall",
        Text("auto"),
        "the `backend` that keeps the firewall rules: auto, iptables, nftables or none",
    ),
    flag(
        "guardian",
        Switch(false),
        "stay beside the server as a small process that removes its firewall rules when it is killed",
    ),
    flag(
        "handover",
        Switch(true),
        "take over from a nodens that serves the same addresses, and let the next one take over",
    ),
    flag("health-port", Text("8080"), "the `port` of health checks, for the firewall rules alone"),
    flag("interfacename", Text("nodelocaldns"), "the name of the dummy interface"),
    flag(
        "kubednscm",
        Text(""),
        "the `directory` where the kube-dns ConfigMap is mounted; /etc/kube-dns when empty and there",
    ),
    flag(
        "localip",
        Text(""),
        "the `addresses` to listen on, with commas and without spaces between them; required",
    ),
    flag(
        "log-format",
        Text("text"),
        "the `format` of log lines: text, or json for one object a line (ts, level, plugin, msg)",
    ),
    flag(
        "memory-limit",
        Text(""),
        "the `octets` that caches, queries and connections share (64Mi); 0 for no limit; 80% of the cgroup's when empty",
    ),
    flag(
        "metrics-listen-address",
        Text("0.0.0.0:9353"),
        "the `address` of the metrics of the set-up, host:port",
    ),
    flag("p", Text("53"), "the same as -dns.port"),
    flag("pidfile", Text(""), "the `path` to write the process id to once the listeners are up"),
    flag("plugins", Switch(false), "list the plugins and exit"),
    flag(
        "prometheus-listen-address",
        Text(":9253"),
        "the `address` that __PROMETHEUS__ENDPOINT__ stands for in the template",
    ),
    flag("quiet", Switch(false), "say nothing at start"),
    flag("reloadwithsignal", Switch(false), "load the Corefile whenever it was written"),
    flag(
        "runtime-dir",
        Text("/run/nodens"),
        "the `directory` to remember in what was made on the node, and where handovers take place",
    ),
    flag(
        "seccomp",
        Text("on"),
        "the `filter` of system calls: on, off, or kill to end the process at one that is not listed",
    ),
    flag(
        "service-rewrite",
        Text(""),
        "the `pairs` SERVICE=LOCAL of addresses, with commas: nftables sends pods' queries for SERVICE to LOCAL, which is one of -localip",
    ),
    flag("setupinterface", Switch(true), "make and maintain the dummy interface"),
    flag(
        "setupiptables",
        Switch(true),
        "make and maintain the firewall rules; when false the same as -firewall=none",
    ),
    flag("skipteardown", Switch(false), "leave interface and rules in place on exit"),
    flag(
        "syncinterval",
        Duration("60ns"),
        "the `interval` of the checks of interface and rules; 60ns and 60s both mean a minute",
    ),
    flag(
        "tls-cert-file",
        Text("/etc/ssl/tls.crt"),
        "the `path` of the certificate of the metrics endpoint",
    ),
    flag(
        "tls-client-auth-type",
        Text("NoClientCert"),
        "what the metrics endpoint asks of client certificates, by Go's `name`",
    ),
    flag("tls-client-ca-file", Text(""), "the `path` of the authorities of client certificates"),
    flag("tls-enabled", Switch(false), "serve the metrics endpoint over TLS"),
    flag("tls-min-version", Text("TLS13"), "the least TLS `version` of the metrics endpoint"),
    flag(
        "tls-private-key-file",
        Text("/etc/ssl/tls.key"),
        "the `path` of the key of the metrics endpoint",
    ),
    flag(
        "upstreamsvc",
        Text("kube-dns"),
        "the Service whose cluster IP __PILLAR__CLUSTER__DNS__ stands for; empty where there is none",
    ),
    flag("version", Switch(false), "show the version and exit"),
];

/// What is told of one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagText {
    /// Without its dash.
    pub name: &'static str,
    /// What its value is called; `None` for a switch.
    pub value: Option<&'static str>,
    /// What it is for, and its default.
    pub help: String,
}

/// The flags of serving, in alphabetical order.
pub fn flag_texts() -> impl Iterator<Item = FlagText> {
    FLAGS.iter().map(|flag| {
        let (help, value) = match flag.help.split('`').collect::<Vec<_>>().as_slice() {
            [before, value, after] => (format!("{before}{value}{after}"), *value),
            _ => (flag.help.to_owned(), "string"),
        };
        let (value, default) = match flag.kind {
            Switch(false) => (None, String::new()),
            Switch(true) => (None, " (default true)".to_owned()),
            Text("") => (Some(value), String::new()),
            Text(default) => (Some(value), format!(" (default {default:?})")),
            Duration(default) => (Some(value), format!(" (default {default})")),
        };
        FlagText { name: flag.name, value, help: help + &default }
    })
}

/// Reads the command line; `arguments` start with the program's name.
pub(super) fn parse(arguments: &[String]) -> Outcome {
    let program = arguments.first().map_or("nodens", String::as_str);
    let line = translate(arguments.get(1..).unwrap_or_default());
    let bad = |text: String| Outcome::Print {
        text: format!("{text}\n{}", usage(program)),
        stream: Stream::Error,
        code: 2,
    };
    // Whatever stands before the place where reading ended is judged first, as Go does.
    let values = match command().try_get_matches_from(line.flags) {
        Ok(values) => values,
        Err(error) => {
            let fault = std::error::Error::source(&error).map(ToString::to_string);
            return bad(fault.unwrap_or_else(|| error.to_string().trim_end().to_owned()));
        }
    };
    let rest = match line.end {
        End::Rest(rest) => rest,
        End::Help => {
            return Outcome::Print { text: usage(program), stream: Stream::Error, code: 0 };
        }
        End::Fault(text) => return bad(text),
    };
    let options = match options::check(&Values(&values)) {
        Ok(options) => options,
        Err(text) => return Outcome::Fatal(format!("Error parsing flags - {text}, Exiting")),
    };
    if !rest.is_empty() {
        return Outcome::Print {
            text: format!("extra command line arguments: [{}]\n", rest.join(" ")),
            stream: Stream::Error,
            code: 1,
        };
    }
    let values = Values(&values);
    if values.switch("version") {
        return Outcome::Print {
            text: format!("{}\n", version::banner()),
            stream: Stream::Out,
            code: 0,
        };
    }
    if values.switch("plugins") {
        return Outcome::Print { text: plugins_text(), stream: Stream::Out, code: 0 };
    }
    Outcome::Run(Box::new(options))
}

/// `bind` and so on, one a line, in alphabetical order, and an empty line.
fn plugins_text() -> String {
    let carried = TABLE.iter().filter(|row| row.setup.is_ok());
    let mut words: Vec<String> = carried.map(|row| format!("{}\n", row.word)).collect();
    words.sort();
    words.concat() + "\n"
}

/// The values of all flags after parsing.
pub(super) struct Values<'m>(&'m ArgMatches);

impl Values<'_> {
    /// The value of a text or duration flag as given, or its default.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get_one::<String>(name).map_or("", String::as_str)
    }

    /// The value of a switch.
    pub(super) fn switch(&self, name: &str) -> bool {
        self.0.get_one::<bool>(name).copied().unwrap_or_default()
    }

    /// The value of a duration flag in nanoseconds.
    pub(super) fn nanoseconds(&self, name: &str) -> i64 {
        self.0.get_one::<i64>(name).copied().unwrap_or_default()
    }

    /// The value of whichever of two flags for one setting stands last.
    pub(super) fn last_of(&self, one: &str, other: &str) -> &str {
        let place = |name: &str| self.0.indices_of(name).and_then(Iterator::last);
        let given =
            |name: &str| self.0.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
        match (given(one), given(other)) {
            (false, true) => self.text(other),
            (true, true) if place(other) > place(one) => self.text(other),
            _ => self.text(one),
        }
    }
}

/// The text of a value that a flag does not take: the whole line that Go prints.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Fault(String);

/// clap's view of the table: every flag as `--NAME=VALUE`.
fn command() -> Command {
    let command = Command::new("nodens")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    FLAGS.iter().fold(command, |command, flag| {
        let argument = Arg::new(flag.name).long(flag.name).require_equals(true).num_args(1);
        let name = flag.name;
        command.arg(match flag.kind {
            Switch(default) => argument
                .default_value(if default { "true" } else { "false" })
                .value_parser(move |text: &str| switch(name, text)),
            Text(default) => argument.default_value(default),
            Duration(default) => {
                argument.default_value(default).value_parser(move |text: &str| duration(name, text))
            }
        })
    })
}

/// Go's `strconv.ParseBool`.
fn switch(name: &str, text: &str) -> Result<bool, Fault> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            let text = crate::corefile::quote(text);
            Err(Fault(format!("invalid boolean value {text} for -{name}: parse error")))
        }
    }
}

fn duration(name: &str, text: &str) -> Result<i64, Fault> {
    crate::corefile::parse_duration(text).map_err(|_| {
        let text = crate::corefile::quote(text);
        Fault(format!("invalid value {text} for flag -{name}: parse error"))
    })
}

/// A command line in clap's syntax, as far as Go would read it.
struct Line {
    flags: Vec<String>,
    end: End,
}

/// Why reading ended.
enum End {
    /// At the first argument that is no flag, or behind `--`: these follow.
    Rest(Vec<String>),
    /// At `-h` or `-help`.
    Help,
    /// At something that is not Go's syntax.
    Fault(String),
}

/// Go's syntax to clap's: one dash or two, `=VALUE` or the next argument, switches alone.
fn translate(arguments: &[String]) -> Line {
    let mut flags = Vec::new();
    let mut rest = arguments;
    let end = loop {
        let Some((argument, behind)) = rest.split_first() else { break End::Rest(Vec::new()) };
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
            break End::Rest(rest.to_vec());
        };
        rest = behind;
        if body == "-" {
            break End::Rest(rest.to_vec());
        }
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.starts_with(['-', '=']) {
            break End::Fault(format!("bad flag syntax: {argument}"));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            break match name {
                "h" | "help" => End::Help,
                _ => End::Fault(format!("flag provided but not defined: -{name}")),
            };
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Switch(_)) => "true",
            (None, _) => match rest.split_first() {
                Some((value, behind)) => {
                    rest = behind;
                    value
                }
                None => break End::Fault(format!("flag needs an argument: -{name}")),
            },
        };
        flags.push(format!("--{name}={value}"));
    };
    Line { flags, end }
}

/// The usage text in the form of Go's `flag.PrintDefaults`.
fn usage(program: &str) -> String {
    let mut text = format!(
        "Usage of {program}:\nRuns nodens (CoreDNS v{} semantics) as a nodelocal cache listening on the specified ip:port\n\n",
        version::COREDNS_VERSION
    );
    for FlagText { name, value, help } in flag_texts() {
        let value = value.map(|value| format!(" {value}")).unwrap_or_default();
        text.push_str(&format!("  -{name}{value}\n    \t{help}\n"));
    }
    if !program.ends_with("node-cache") {
        text.push_str("\nCommands beside serving: nodens help\n");
    }
    text
}

#[cfg(test)]
mod tests {
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
            Outcome::Fatal(text) => (1, text),
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
            (
                "-setupiptables=maybe",
                "invalid boolean value \"maybe\" for -setupiptables: parse error",
            ),
            ("-skipteardown=", "invalid boolean value \"\" for -skipteardown: parse error"),
            ("-localip", "flag needs an argument: -localip"),
            ("-syncinterval=60", "invalid value \"60\" for flag -syncinterval: parse error"),
            ("---localip=1", "bad flag syntax: ---localip=1"),
            ("-=1", "bad flag syntax: -=1"),
            (
                "-skipteardown=yes -h",
                "invalid boolean value \"yes\" for -skipteardown: parse error",
            ),
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
                "unexpected IP Family for localIP - \"::1\", want IPv6=false",
            ),
            (
                "-localip=::1,::ffff:127.0.0.1",
                "unexpected IP Family for localIP - \"127.0.0.1\", want IPv6=true",
            ),
            ("-localip=::1 -dns.port=abc", "invalid port specified - \"abc\""),
            ("-localip=::1 --log-format=xml", "invalid log-format specified - \"xml\""),
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
}
