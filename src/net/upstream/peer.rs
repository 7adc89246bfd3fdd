//! One upstream as all workers share it: its health and its connections.
//!
//! Owns the pools. Asks nothing itself: that is a try's matter, and which upstream is asked the
//! exchange's.

use super::dial::{Dialer, SystemRoots};
use super::health::Health;
use super::limits::{DATAGRAMS, MESSENGERS, STREAMS};
use super::parked::Reply;
use super::pool::Pool;
use crate::dns::{Rcode, Transport};
use crate::metrics::{Histogram, Registry, names};
use crate::plugin::forward::{Fault, Keeping, Options, Probe, Upstream};
use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// What makes two upstreams of two directives the same: address, TLS settings, how it is probed
/// and how its connections are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PeerKey {
    upstream: Upstream,
    probe: Probe,
    probed_over: Transport,
    keeping: Keeping,
}

impl PeerKey {
    /// The key of an upstream in a directive with these options.
    pub(super) fn new(upstream: &Upstream, options: &Options) -> PeerKey {
        let probed_over = match &upstream.tls {
            Some(tls) => tls.over,
            None if options.force_tcp => Transport::Tcp,
            None => Transport::Udp,
        };
        PeerKey {
            upstream: upstream.clone(),
            probe: options.probe.clone(),
            probed_over,
            keeping: options.keeping.clone(),
        }
    }
}

/// One upstream.
#[derive(Debug)]
pub(super) struct Peer {
    health: Arc<Health>,
    dialer: Arc<Dialer>,
    roots: Arc<SystemRoots>,
    tcp: Arc<Pool>,
    /// The only pool of an upstream that is asked encrypted.
    sealed: Option<Arc<Pool>>,
    /// One for each worker.
    udp: Box<[Arc<Pool>]>,
    metrics: Registry,
    durations: Mutex<HashMap<Rcode, Histogram>>,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    /// Go's words.
    pub(super) text: Box<str>,
    /// What that says about further tries.
    pub(super) fault: Fault,
    /// It was our own bound and says nothing about the upstream.
    pub(super) is_ours: bool,
    /// The response to give when no other try brings one.
    pub(super) instead: Option<Reply>,
}

impl Peer {
    /// An upstream that nobody has asked yet.
    pub(super) fn new(
        key: &PeerKey,
        workers: usize,
        roots: Arc<SystemRoots>,
        metrics: &Registry,
    ) -> Peer {
        let to = key.upstream.text.as_str();
        let failures = metrics.lazy_counter(&names::PROXY_HEALTHCHECK_FAILURES, &["forward", to]);
        let pool = |transport, limits| {
            Arc::new(Pool::new(to, transport, limits, key.keeping.clone(), metrics))
        };
        Peer {
            health: Arc::new(Health::new(key.probe.clone(), key.probed_over, failures)),
            dialer: Arc::new(Dialer::new(&key.upstream, &key.keeping)),
            roots,
            tcp: pool(Transport::Tcp, STREAMS),
            sealed: key.upstream.tls.as_ref().map(|tls| match tls.over {
                Transport::Https | Transport::Quic => pool(tls.over, MESSENGERS),
                _ => pool(Transport::Tls, STREAMS),
            }),
            udp: (0..workers.max(1)).map(|_| pool(Transport::Udp, DATAGRAMS)).collect(),
            metrics: metrics.clone(),
            durations: Mutex::default(),
        }
    }

    /// Whether it is down for a directive with this `max_fails`. One that is down is being probed.
    pub(super) fn is_down(&self, max_fails: u32, in_use: &Arc<dyn Any + Send + Sync>) -> bool {
        let is_down = self.health.is_down(max_fails);
        if is_down {
            self.check(in_use);
        }
        is_down
    }

    /// Starts to probe it, unless that is going on.
    pub(super) fn check(&self, in_use: &Arc<dyn Any + Send + Sync>) {
        let in_use: Weak<dyn Any + Send + Sync> = Arc::downgrade(in_use);
        self.health.check(&self.dialer, &self.roots, in_use);
    }

    /// Whether it has answered and is not down for a directive with this `max_fails`. One that never
    /// answered is greeted.
    pub(super) fn answers(&self, max_fails: u32) -> bool {
        if !self.health.has_answered() {
            self.health.greet(&self.dialer, &self.roots);
            return false;
        }
        !self.health.is_down(max_fails)
    }

    /// Its address, when it can be told.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.dialer.address("udp").ok()
    }

    /// How a query goes to it that is asked over `transport`.
    pub(super) fn transport(&self, transport: Transport) -> Transport {
        self.sealed.as_ref().map_or(transport, |sealed| sealed.transport)
    }

    /// Counts a successful try.
    pub(super) fn observe(&self, rcode: Rcode, took: Duration) {
        self.health.answered();
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = durations.entry(rcode).or_insert_with(|| {
            let word = match rcode.word() {
                Some(word) => word.to_owned(),
                None => rcode.0.to_string(),
            };
            let labels = ["forward", self.dialer.text(), word.as_str()];
            self.metrics.histogram(&names::PROXY_REQUEST_DURATION, &labels)
        });
        histogram.observe(took.as_secs_f64());
    }

    /// What its connections are opened with.
    pub(super) fn means(&self) -> (Arc<Dialer>, Arc<SystemRoots>) {
        (self.dialer.clone(), self.roots.clone())
    }

    /// Its pool for queries over `transport` of the worker with this number.
    pub(super) fn pool(&self, transport: Transport, worker: usize) -> &Arc<Pool> {
        match (&self.sealed, transport) {
            (Some(sealed), _) => sealed,
            (None, Transport::Udp) => &self.udp[worker % self.udp.len()],
            (None, _) => &self.tcp,
        }
    }
}

impl Failed {
    /// The upstream failed.
    pub(super) fn theirs(text: Box<str>) -> Failed {
        Failed { text, fault: Fault::Bad, is_ours: false, instead: None }
    }

    /// Nobody was there.
    pub(super) fn away(text: Box<str>) -> Failed {
        Failed { fault: Fault::Away, ..Failed::theirs(text) }
    }
}
