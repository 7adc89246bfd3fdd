//! What directives ask the app to run beside the servers.

use super::dnstap::Tap;
use std::sync::Arc;
use std::time::Duration;

/// A thing that runs outside of the query path because a directive asked for it.
#[derive(Debug, Clone)]
pub enum Service {
    /// `health`: /health on `address`, a self-poll each second, lameduck before shutdown.
    Health {
        /// `host:port`, host possibly empty.
        address: String,
        /// How long to serve on after SIGTERM.
        lameduck: Duration,
        /// What must hold for it to be well; none but that the process lives when empty.
        strict: Vec<Part>,
    },
    /// `ready`: /ready on `address`.
    Ready {
        /// `host:port`.
        address: String,
        /// When a part that was ready may be unready again.
        monitor: Monitor,
    },
    /// `prometheus`: /metrics on `address`. A bind failure is logged, not fatal.
    Prometheus {
        /// `host:port`.
        address: String,
        /// The endpoint speaks TLS.
        tls: Option<Arc<rustls::ServerConfig>>,
    },
    /// `pprof`: a CPU profile on `address`.
    Pprof {
        /// `host:port`, host possibly empty.
        address: String,
    },
    /// `reload`: look at the Corefile every `interval`, jittered; the last block's values win.
    Reload {
        /// At least 2 s.
        interval: Duration,
        /// 0, or at least 1 s.
        jitter: Duration,
    },
    /// `dnstap`: send what lies in the tap to its endpoint.
    Dnstap(Arc<Tap>),
    /// `loop`: send the probe until it comes back, is answered, or 30 s are over.
    Loop(Arc<LoopProbe>),
}

/// The probe of one `loop` directive, shared by its handler (which counts) and the app (which
/// sends).
#[derive(Debug)]
pub struct LoopProbe {
    /// The block's zone, for the message.
    pub zone: String,
    /// The probe's name: two random numbers and the zone.
    pub name: crate::dns::Name,
    /// Where to send it: `host:port` of the block's first listener.
    pub target: String,
    /// How often it came back; more than 2 is a loop.
    pub seen: std::sync::atomic::AtomicU32,
    /// Set when probing is over.
    pub disabled: std::sync::atomic::AtomicBool,
    /// Set by the handler when a loop is certain: the text for the FATAL line.
    pub verdict: std::sync::Mutex<Option<String>>,
}

/// What serving stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The workers read their sockets.
    Listeners,
    /// The interface has its addresses.
    Interface,
    /// The firewall rules are set.
    Rules,
    /// An upstream answers.
    Upstreams,
}

impl Part {
    /// All, in the order in which they are told.
    pub const ALL: [Part; 4] = [Part::Listeners, Part::Interface, Part::Rules, Part::Upstreams];

    /// Its word in Corefiles, responses and labels.
    pub fn word(self) -> &'static str {
        match self {
            Part::Listeners => "listeners",
            Part::Interface => "interface",
            Part::Rules => "rules",
            Part::Upstreams => "upstreams",
        }
    }
}

/// How long /ready looks at a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Monitor {
    /// Until it was ready once.
    #[default]
    UntilReady,
    /// Always.
    Continuously,
}
