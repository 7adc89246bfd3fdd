//! The table of flags: names, values, defaults, and what each is for. Usage text, manual, completions and
//! parser come from it.

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

pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What it is for; a word in backquotes names its value.
    pub(super) help: &'static str,
}

const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, kind, help }
}

use Kind::{Duration, Switch, Text};

/// All flags, in the order of the usage text.
pub(super) static FLAGS: &[Flag] = &[
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
        "the `octets` that caches, queries and connections share, such as 64Mi; 0 for no limit; 80% of the cgroup's when empty",
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
    flag(
        "reloadwithsignal",
        Switch(false),
        "load the Corefile whenever it was written, and when a file beside the template changed",
    ),
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
