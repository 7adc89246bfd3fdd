//! The command line's settings, checked: what the rest of the process is told.
//!
//! Owns the meaning of flag values. Immutable from start to exit; reads nothing but the flags.

use super::flags::Values;
use super::limit::{self, Limit};
use super::log::Format;
use crate::corefile::{parse_integer, quote};
use crate::node::firewall::{Rewrite, Wanted};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Checked settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// `-localip`.
    pub(super) local: LocalAddresses,
    /// Interface and firewall rules.
    pub(super) network: NetworkSetup,
    /// The files.
    pub(super) files: Files,
    /// The addresses for people and scrapers.
    pub(super) endpoints: Endpoints,
    /// `-dns.port` or `-p`: the default port of server blocks and the port of the rules.
    pub(super) dns_port: u16,
    /// `-upstreamsvc`: the Service that `__PILLAR__CLUSTER__DNS__` stands for.
    pub(super) upstream_service: String,
    /// `-reloadwithsignal`: load the Corefile at once after writing it.
    pub(super) reload_after_write: bool,
    /// `-quiet`: no list of zones, no version at start.
    pub(super) quiet: bool,
    /// `-memory-limit`.
    pub(super) memory_limit: Limit,
    /// `-log-format`.
    pub(super) log_format: Format,
    /// What to log at WARNING: values that were taken otherwise than they stand there.
    pub(super) warnings: Vec<String>,
}

/// The addresses that this node's pods ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalAddresses {
    /// As given, with commas: the template and the rules use this spelling.
    pub(super) text: String,
    /// Parsed, in order; at least one, all of one family but with `-dual-stack`.
    pub(super) addresses: Vec<IpAddr>,
}

/// What to make and maintain on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkSetup {
    /// The dummy interface's name, unless `-setupinterface=false`.
    pub(super) interface: Option<String>,
    /// `-firewall`; none with `-setupiptables=false`.
    pub(super) firewall: Wanted,
    /// `-service-rewrite`; with `-firewall=nftables` alone.
    pub(super) rewrites: Vec<Rewrite>,
    /// `-guardian`: a second process outlives the server and removes the rules.
    pub(super) has_guardian: bool,
    /// The interval of the checks; at least 1 s.
    pub(super) sync_interval: Duration,
    /// False with `-skipteardown`.
    pub(super) teardown: bool,
    /// `-health-port`, for the rules alone.
    pub(super) health_port: u16,
    /// False with `-handover=false`.
    pub(super) hands_over: bool,
    /// `-runtime-dir`: where it is remembered what was made, and where handovers take place.
    pub(super) runtime_directory: PathBuf,
    /// False with `-drop-capabilities=false`.
    pub(super) drops_capabilities: bool,
    /// `-seccomp`.
    pub(super) filtered: Filtered,
}

/// What becomes of system calls that serving does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filtered {
    /// `off`: nothing.
    Not,
    /// `on`: they fail.
    Refused,
    /// `kill`: they end the process.
    Deadly,
}

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    /// `-basecorefile`: the template.
    pub(super) base: PathBuf,
    /// `-conf`, else `-corefile`: written, then loaded.
    pub(super) corefile: PathBuf,
    /// `-kubednscm`: where the kube-dns ConfigMap is mounted; `None` means
    /// [`Files::DEFAULT_KUBE_DNS`] if that exists.
    pub(super) kube_dns: Option<PathBuf>,
    /// `-pidfile`.
    pub(super) pid_file: Option<PathBuf>,
    /// `-cache-snapshot`: where the cache is kept over a restart.
    pub(super) cache_snapshot: Option<PathBuf>,
}

impl Files {
    /// The kube-dns ConfigMap's directory when the flag does not name one.
    pub(super) const DEFAULT_KUBE_DNS: &'static str = "/etc/kube-dns";
}

/// The addresses for people and scrapers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// `-metrics-listen-address`, host:port, unchecked: a bad one is logged, not fatal.
    pub(super) metrics: String,
    /// `-prometheus-listen-address`: what `__PROMETHEUS__ENDPOINT__` stands for.
    pub(super) prometheus: String,
    /// TLS of the metrics endpoint, with `-tls-enabled`.
    pub(super) tls: Option<MetricsTls>,
}

/// TLS of the metrics endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MetricsTls {
    /// `-tls-cert-file`.
    pub(super) certificate: PathBuf,
    /// `-tls-private-key-file`.
    pub(super) key: PathBuf,
    /// `-tls-client-auth-type`.
    pub(super) client_auth: ClientAuth,
    /// `-tls-client-ca-file`.
    pub(super) client_ca: Option<PathBuf>,
    /// `-tls-min-version` is `TLS13`; else TLS 1.2 passes too.
    pub(super) only_tls13: bool,
}

/// What a TLS endpoint asks of client certificates, by Go's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    /// `NoClientCert`.
    None,
    /// `RequestClientCert`: asked for, neither required nor verified.
    Request,
    /// `RequireAnyClientCert`: required, not verified.
    RequireAny,
    /// `VerifyClientCertIfGiven`.
    VerifyIfGiven,
    /// `RequireAndVerifyClientCert`.
    RequireAndVerify,
}

/// Below this, `-syncinterval` was meant in the only way that works with node-cache, which
/// multiplies it by a second: `60ns` for a minute.
const TAKEN_AS_SECONDS_BELOW: i64 = 1_000_000;

/// The least interval of the checks.
const LEAST_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Checks the values. The error is node-cache's text, such as `invalid localip specified - ""`.
pub(super) fn check(values: &Values<'_>) -> Result<Options, String> {
    let mut warnings = Vec::new();
    let local = local_addresses(values.text("localip"))?;
    if !values.switch("dual-stack") {
        must_be_of_one_family(&local.addresses)?;
    }
    let dns_port = port("port", values.last_of("dns.port", "p"), "dns.port", 53, &mut warnings)?;
    let health_port =
        port("healthcheck port", values.text("health-port"), "health-port", 8080, &mut warnings)?;
    let rewrites = rewrites(values.text("service-rewrite"), &local.addresses)?;
    let network = NetworkSetup {
        interface: values.switch("setupinterface").then(|| values.text("interfacename").to_owned()),
        firewall: firewall(values, &rewrites, &mut warnings)?,
        rewrites,
        has_guardian: values.switch("guardian"),
        sync_interval: sync_interval(values.nanoseconds("syncinterval"), &mut warnings)?,
        teardown: !values.switch("skipteardown"),
        health_port,
        hands_over: values.switch("handover"),
        runtime_directory: values.text("runtime-dir").into(),
        drops_capabilities: values.switch("drop-capabilities"),
        filtered: filtered(values.text("seccomp"))?,
    };
    let log_format = log_format(values.text("log-format"))?;
    let memory_limit = memory_limit(values.text("memory-limit"))?;
    let path =
        |name: &str| Some(values.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
    let files = Files {
        base: values.text("basecorefile").into(),
        corefile: path("conf").unwrap_or_else(|| values.text("corefile").into()),
        kube_dns: path("kubednscm"),
        pid_file: path("pidfile"),
        cache_snapshot: path("cache-snapshot"),
    };
    let endpoints = Endpoints {
        metrics: values.text("metrics-listen-address").to_owned(),
        prometheus: values.text("prometheus-listen-address").to_owned(),
        tls: match values.switch("tls-enabled") {
            true => Some(metrics_tls(values)?),
            false => None,
        },
    };
    Ok(Options {
        local,
        network,
        files,
        endpoints,
        dns_port,
        upstream_service: values.text("upstreamsvc").to_owned(),
        reload_after_write: values.switch("reloadwithsignal"),
        quiet: values.switch("quiet"),
        memory_limit,
        log_format,
        warnings,
    })
}

fn filtered(text: &str) -> Result<Filtered, String> {
    match text {
        "off" => Ok(Filtered::Not),
        "on" => Ok(Filtered::Refused),
        "kill" => Ok(Filtered::Deadly),
        other => Err(format!("invalid seccomp specified - {}", quote(other))),
    }
}

fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        other => Err(format!("invalid log-format specified - {}", quote(other))),
    }
}

fn memory_limit(text: &str) -> Result<Limit, String> {
    limit::parse(text).map_err(|()| {
        let given = quote(text);
        format!(
            "invalid memory-limit specified - {given}: 0, or 16Mi and more (k, M, G, Ki, Mi, Gi)"
        )
    })
}

fn local_addresses(text: &str) -> Result<LocalAddresses, String> {
    let addresses = text
        .split(',')
        .map(|one| {
            one.parse::<IpAddr>().map_err(|_| format!("invalid localip specified - {}", quote(one)))
        })
        .collect::<Result<Vec<IpAddr>, String>>()?;
    Ok(LocalAddresses { text: text.to_owned(), addresses })
}

/// An error when the addresses are not of the first one's family.
fn must_be_of_one_family(addresses: &[IpAddr]) -> Result<(), String> {
    // An IPv4 address in IPv6 spelling is an IPv4 address, as for Go.
    let is_v6 = |address: &IpAddr| address.to_canonical().is_ipv6();
    let wanted = addresses.first().is_some_and(is_v6);
    match addresses.iter().find(|address| is_v6(address) != wanted) {
        None => Ok(()),
        Some(odd) => Err(format!(
            "unexpected IP Family for localIP - {}, want IPv6={wanted}: -dual-stack lets it hold both",
            quote(&odd.to_canonical().to_string())
        )),
    }
}

/// Any integer passes, as in node-cache; one that is no port is replaced and warned about.
fn port(
    what: &str,
    text: &str,
    flag: &str,
    default: u16,
    warnings: &mut Vec<String>,
) -> Result<u16, String> {
    let number =
        parse_integer(text).map_err(|_| format!("invalid {what} specified - {}", quote(text)))?;
    Ok(u16::try_from(number).unwrap_or_else(|_| {
        warnings.push(format!("-{flag}={text} is no port, using {default}"));
        default
    }))
}

/// `-setupiptables=false` is node-cache's word for no rules, and is meant so.
fn firewall(
    values: &Values<'_>,
    rewrites: &[Rewrite],
    warnings: &mut Vec<String>,
) -> Result<Wanted, String> {
    let text = values.text("firewall");
    let mut wanted = Wanted::parse(text)
        .ok_or_else(|| format!("invalid firewall specified - {}", quote(text)))?;
    if !rewrites.is_empty() {
        // Nobody else exchanges addresses.
        let is_kept = values.switch("setupiptables");
        wanted = match wanted {
            Wanted::Auto | Wanted::Nftables if is_kept => Wanted::Nftables,
            _ => {
                let pairs = values.text("service-rewrite");
                let text = "it needs -firewall=nftables";
                return Err(format!("invalid service-rewrite specified - {pairs}: {text}"));
            }
        };
    }
    if values.switch("setupiptables") {
        return Ok(wanted);
    }
    if matches!(wanted, Wanted::Iptables | Wanted::Nftables) {
        warnings.push(format!(
            "-setupiptables=false: no firewall rules are kept, in spite of -firewall={text}"
        ));
    }
    Ok(Wanted::None)
}

fn rewrites(text: &str, local: &[IpAddr]) -> Result<Vec<Rewrite>, String> {
    Rewrite::parse_all(text, local)
        .map_err(|why| format!("invalid service-rewrite specified - {why}"))
}

fn sync_interval(nanos: i64, warnings: &mut Vec<String>) -> Result<Duration, String> {
    let Some(nanos) = u64::try_from(nanos).ok().filter(|&nanos| nanos > 0) else {
        return Err(format!("invalid syncinterval specified - \"{nanos}ns\""));
    };
    if nanos < TAKEN_AS_SECONDS_BELOW as u64 {
        return Ok(Duration::from_secs(nanos));
    }
    let interval = Duration::from_nanos(nanos);
    if interval < LEAST_SYNC_INTERVAL {
        warnings.push(format!("-syncinterval={interval:?} is too short, using 1s"));
    }
    Ok(interval.max(LEAST_SYNC_INTERVAL))
}

fn metrics_tls(values: &Values<'_>) -> Result<MetricsTls, String> {
    let wrong = |flag: &str| format!("invalid {flag} specified - {}", quote(values.text(flag)));
    let client_auth = match values.text("tls-client-auth-type") {
        "NoClientCert" => ClientAuth::None,
        "RequestClientCert" => ClientAuth::Request,
        "RequireAnyClientCert" => ClientAuth::RequireAny,
        "VerifyClientCertIfGiven" => ClientAuth::VerifyIfGiven,
        "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerify,
        _ => return Err(wrong("tls-client-auth-type")),
    };
    let only_tls13 = match values.text("tls-min-version") {
        "TLS13" | "VersionTLS13" => true,
        // Versions before 1.2 are not spoken: 1.2 is what is left of the wish.
        "TLS10" | "TLS11" | "TLS12" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => false,
        _ => return Err(wrong("tls-min-version")),
    };
    let client_ca = values.text("tls-client-ca-file");
    Ok(MetricsTls {
        certificate: values.text("tls-cert-file").into(),
        key: values.text("tls-private-key-file").into(),
        client_auth,
        client_ca: (!client_ca.is_empty()).then(|| client_ca.into()),
        only_tls13,
    })
}
