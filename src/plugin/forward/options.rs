//! What one `forward` directive asks for: the upstreams and how they are used, probed and kept.
//!
//! Pure data, compared and hashed: connections and health are shared between directives, and over
//! reloads, whose upstream, probe and connection options are equal.

use super::policy::Policy;
use super::tls::TlsSettings;
use crate::dns::{Name, Rcode};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// One upstream of a directive (a TO).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// `IP:port` as metrics, metadata and error texts show it, without scheme and zone.
    pub text: String,
    /// The address.
    pub ip: IpAddr,
    /// The IPv6 zone (`fe80::1%eth0`): an interface's name or number.
    pub interface: Option<String>,
    /// The port, or the text that is none (CoreDNS notices only when it dials).
    pub port: Result<u16, String>,
    /// TLS settings when the upstream is `tls://`.
    pub tls: Option<Arc<TlsSettings>>,
}

/// The health probe of a directive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Between failed probes; default 0.5 s.
    pub interval: Duration,
    /// The QNAME of the NS question; default the root.
    pub domain: Name,
    /// Whether RD is set.
    pub recursion: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Probe { interval: Duration::from_millis(500), domain: Name::root(), recursion: true }
    }
}

/// How connections to upstreams are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keeping {
    /// How long an idle connection is kept; default 10 s.
    pub expire: Duration,
    /// The oldest connection that gets a query; `None` stands for our own default.
    pub max_age: Option<Duration>,
    /// The most idle connections kept for an upstream and transport; 0 means no limit but ours.
    pub max_idle: usize,
    /// The local address that connections come from.
    pub source: Option<IpAddr>,
}

impl Default for Keeping {
    fn default() -> Self {
        Keeping { expire: Duration::from_secs(10), max_age: None, max_idle: 0, source: None }
    }
}

/// All options of one `forward` directive.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names that are not forwarded, with all below them.
    pub except: Vec<Name>,
    /// Always TCP.
    pub force_tcp: bool,
    /// UDP first, whatever the client used; TCP when the response is truncated.
    pub prefer_udp: bool,
    /// The order in which upstreams are tried.
    pub policy: Policy,
    /// More failed probes than this mean down; 0: never down, never probed.
    pub max_fails: u32,
    /// The most tries for a query; 0: two for each upstream.
    pub max_connect_attempts: u32,
    /// The most queries of this directive in flight; 0: no limit.
    pub max_concurrent: u64,
    /// Answer SERVFAIL at once when all upstreams are down.
    pub failfast: bool,
    /// Responses with these rcodes go to the `forward` below, if there is one.
    pub next: Vec<Rcode>,
    /// So does a NODATA response.
    pub next_on_nodata: bool,
    /// Responses with these rcodes make the next upstream be tried.
    pub failover: Vec<Rcode>,
    /// How long one try may take, connecting included; default 2 s. All of them end with the query's
    /// [`BUDGET`](super::BUDGET).
    pub read_timeout: Duration,
    /// The health probe.
    pub probe: Probe,
    /// How connections are kept.
    pub keeping: Keeping,
}

/// How long one try may take unless `read_timeout` says.
const USUAL_TRY: Duration = Duration::from_secs(2);

impl Default for Options {
    fn default() -> Self {
        Options {
            except: Vec::new(),
            force_tcp: false,
            prefer_udp: false,
            policy: Policy::Random,
            max_fails: 2,
            max_connect_attempts: 0,
            max_concurrent: 0,
            failfast: false,
            next: Vec::new(),
            next_on_nodata: false,
            failover: Vec::new(),
            read_timeout: USUAL_TRY,
            probe: Probe::default(),
            keeping: Keeping::default(),
        }
    }
}
