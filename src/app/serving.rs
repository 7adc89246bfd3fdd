//! The running server: workers, snapshot, services, upkeep; its start, reloads and end.
//!
//! Owns the order in which a snapshot takes effect: sockets first, then publication, then what
//! belongs to the old one is closed. Any error before publication leaves everything as it was.

use super::load::{Loaded, Loader};
use super::log::Log;
use super::readiness::Readiness;
use super::services::{Prepared, ServiceWorld, Services};
use super::snapshot_file::{KeptCache, Reports};
use super::upkeep::Upkeep;
use super::version;
use crate::corefile::{has_preferred_syntax, quote};
use crate::dns::Name;
use crate::engine::Snapshot;
use crate::metrics::{Registry, names};
use crate::net::dnstap::Senders;
use crate::net::{Clock, Equipment, Heartbeat, Workers};
use crate::plugin::cache::stores;
use crate::plugin::dnstap::Tap;
use crate::plugin::{Carried, Journal, Level, Part, Service};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::spawn_blocking;

/// How long queries in flight may take to end at shutdown.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The running server.
pub(super) struct Serving {
    loader: Loader,
    log: Log,
    metrics: Registry,
    clock: Clock,
    readiness: Readiness,
    workers: Arc<Workers>,
    snapshot: Arc<Snapshot>,
    hash: String,
    services: Services,
    upkeep: Upkeep,
    senders: Senders,
    kept_cache: Option<KeptCache>,
}

/// What a server is made of.
pub(super) struct Parts {
    /// Where the Corefile comes from.
    pub(super) loader: Loader,
    /// How many worker threads: the number that the registry was made for.
    pub(super) workers: usize,
    /// The file that keeps the cache over a restart.
    pub(super) kept_cache: Option<PathBuf>,
    /// Who is told that the listeners answer.
    pub(super) readiness: Readiness,
}

impl Serving {
    /// Loads, opens the sockets and serves. The receiver gives the verdict of a `loop`. The error
    /// is CoreDNS's text.
    pub(super) async fn start(parts: Parts) -> Result<(Serving, Receiver<String>), String> {
        let Parts { loader, workers, kept_cache, readiness } = parts;
        let (log, metrics) = (loader.log.clone(), loader.metrics.clone());
        let clock = Clock::start();
        let (verdicts, verdict) = channel(1);
        let mut services = Services::new(ServiceWorld {
            metrics: metrics.clone(),
            log: log.clone(),
            readiness: readiness.clone(),
            verdicts,
        });
        let Loaded { snapshot, hash } = loader.load(Carried::within(loader.budget.clone()))?;
        let prepared = services.prepare(&snapshot.services)?;
        let kept_cache = match kept_cache {
            Some(path) => {
                let reports = Reports { clock, log: log.clone(), metrics: metrics.clone() };
                let stores = stores(&snapshot.carried);
                spawn_blocking(move || KeptCache::start(path, stores, reports)).await.ok()
            }
            None => None,
        };
        let equipment = Equipment {
            workers,
            clock,
            metrics: metrics.clone(),
            journal: Arc::new(log.clone()),
            budget: loader.budget.clone(),
        };
        let first = snapshot.clone();
        let workers = blocking(move || Workers::start(&equipment, &first)).await?;
        let workers = Arc::new(workers);
        readiness.has(Part::Listeners);
        let upkeep = Upkeep::start(clock, log.clone(), &metrics, loader.budget.clone());
        upkeep.replace(&snapshot);
        let mut senders = Senders::new(Arc::new(log.clone()));
        senders.replace(taps(&snapshot));
        services.replace(prepared, &snapshot.services);
        services.watch(&snapshot, &workers);
        let serving = Serving {
            loader,
            log,
            metrics,
            clock,
            readiness,
            workers,
            snapshot,
            hash,
            services,
            upkeep,
            senders,
            kept_cache,
        };
        serving.show_snapshot();
        Ok((serving, verdict))
    }

    /// The interval and jitter of `reload`; the last block's values win.
    pub(super) fn reload_every(&self) -> Option<(Duration, Duration)> {
        self.snapshot.services.iter().rev().find_map(|service| match service {
            Service::Reload { interval, jitter } => Some((*interval, *jitter)),
            _ => None,
        })
    }

    /// The pulse of the workers.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        self.workers.heartbeat()
    }

    /// The zones that are served, one line each.
    pub(super) fn announce_zones(&self) {
        for line in zone_lines(&self.snapshot) {
            self.log.plain(&line);
        }
    }

    /// The versions.
    pub(super) fn announce_version(&self) {
        self.log.plain(&version::banner());
    }

    /// False when no block has a listener (`unix://` alone).
    pub(super) fn has_listeners(&self) -> bool {
        !self.snapshot.servers.is_empty()
    }

    /// The hash of the Corefile, where `reload` watches it.
    pub(super) fn announce_hash(&self) {
        if self.reload_every().is_some() {
            self.log.line(
                Level::Info,
                format_args!("plugin/reload: Running configuration SHA512 = {}", self.hash),
            );
        }
    }

    /// `reload`'s tick: looks at the Corefile, and takes it when its tokens changed. A Corefile
    /// that failed is not tried again before it changes.
    pub(super) async fn look_for_change(&mut self) {
        let loader = self.loader.clone();
        let hash = match spawn_blocking(move || loader.hash_now()).await {
            Ok(Some(Ok(hash))) => hash,
            Ok(Some(Err(why))) => {
                self.log.line(
                    Level::Warning,
                    format_args!("plugin/reload: Corefile parse failed: {why}"),
                );
                return;
            }
            Ok(None) | Err(_) => return,
        };
        if hash == self.hash {
            return;
        }
        self.hash = hash;
        let result = self.restart().await;
        self.metrics.reset(&names::RELOAD_VERSION);
        self.metrics.gauge(&names::RELOAD_VERSION, &["sha512", &self.hash]).set(1.0);
        if let Err(why) = result {
            self.log.line(
                Level::Error,
                format_args!(
                    "plugin/reload: Corefile changed but reload failed: starting with listener \
                     file descriptors: {why}"
                ),
            );
            self.metrics.counter(&names::RELOAD_FAILED, &[]).increment();
        }
    }

    /// SIGUSR1: takes the Corefile as it is now.
    pub(super) async fn reload_now(&mut self) {
        self.log.line(Level::Info, format_args!("SIGUSR1: Reloading"));
        if let Err(why) = self.restart().await {
            self.log.line(
                Level::Error,
                format_args!("SIGUSR1: starting with listener file descriptors: {why}"),
            );
        }
    }

    /// Loads the Corefile anew and serves by it; after an error all is as before.
    async fn restart(&mut self) -> Result<(), String> {
        self.log.line(Level::Info, format_args!("Reloading"));
        let result = self.replace().await;
        match &result {
            Ok(()) => {
                self.announce_hash();
                self.log.line(Level::Info, format_args!("Reloading complete"));
            }
            Err(why) => self.log.line(Level::Error, format_args!("Restart failed: {why}")),
        }
        result
    }

    async fn replace(&mut self) -> Result<(), String> {
        let (loader, carried) = (self.loader.clone(), self.snapshot.carried.next());
        let loaded = blocking(move || loader.load(carried)).await?;
        let prepared: Prepared = self.services.prepare(&loaded.snapshot.services)?;
        let (workers, next) = (self.workers.clone(), loaded.snapshot.clone());
        blocking(move || workers.publish(&next)).await?;
        let old = std::mem::replace(&mut self.snapshot, loaded.snapshot);
        self.hash = loaded.hash;
        self.services.replace(prepared, &self.snapshot.services);
        self.services.watch(&self.snapshot, &self.workers);
        self.upkeep.replace(&self.snapshot);
        self.senders.replace(taps(&self.snapshot));
        if let Some(kept) = &self.kept_cache {
            kept.replace(stores(&self.snapshot.carried));
        }
        self.flush(&old);
        self.show_snapshot();
        Ok(())
    }

    /// The lameduck times, in Corefile order.
    pub(super) fn lameducks(&self) -> Vec<Duration> {
        let services = self.snapshot.services.iter();
        services
            .filter_map(|service| match service {
                Service::Health { lameduck, .. } if !lameduck.is_zero() => Some(*lameduck),
                _ => None,
            })
            .collect()
    }

    /// The end has begun: /ready says so.
    pub(super) fn ends(&self) {
        self.readiness.ends();
    }

    /// The handlers' last lines.
    pub(super) fn flush_handlers(&self) {
        self.flush(&self.snapshot);
    }

    /// Writes the kept cache and sends the dnstap records that wait, for an end without
    /// [`Serving::stop`].
    pub(super) async fn save(&mut self) {
        let none = Senders::new(Arc::new(self.log.clone()));
        let senders = std::mem::replace(&mut self.senders, none);
        let kept_cache = self.kept_cache.take();
        // What could not be sent in its time is lost, and counted.
        let _ = spawn_blocking(move || {
            if let Some(kept) = kept_cache {
                kept.finish();
            }
            senders.stop();
        })
        .await;
    }

    /// Stops reading, answers what was received, closes everything. False when queries were still
    /// in flight after 5 s.
    pub(super) async fn stop(self) -> bool {
        self.readiness.lacks(Part::Listeners);
        let (workers, senders, kept_cache) = (self.workers, self.senders, self.kept_cache);
        drop(self.services);
        spawn_blocking(move || {
            workers.stop_reading();
            let is_drained = workers.drain(DRAIN_TIME);
            if let Some(kept) = kept_cache {
                kept.finish();
            }
            if let Some(workers) = Arc::into_inner(workers) {
                workers.join();
            }
            senders.stop();
            is_drained
        })
        .await
        .unwrap_or(false)
    }

    fn flush(&self, snapshot: &Snapshot) {
        let now = self.clock.now();
        for handler in snapshot.blocks.iter().flat_map(|block| &block.chain) {
            handler.flush(now, &self.log);
        }
    }

    /// What the log and the metrics say of the snapshot as such.
    fn show_snapshot(&self) {
        self.log.show_debug(self.snapshot.servers.iter().any(|server| server.debug));
        self.metrics.reset(&names::PLUGIN_ENABLED);
        for (server, zone, word) in enabled(&self.snapshot) {
            self.metrics.gauge(&names::PLUGIN_ENABLED, &[&server, &zone, "", word]).set(1.0);
        }
        let is_measured = |service: &Service| matches!(service, Service::Prometheus { .. });
        if self.snapshot.services.iter().any(is_measured) {
            let labels = [version::COREDNS_VERSION, version::REVISION, version::COMPILER];
            self.metrics.gauge(&names::BUILD_INFO, &labels).set(1.0);
        }
    }
}

/// Where the snapshot's `dnstap` directives leave their records.
fn taps(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Tap>> {
    snapshot.services.iter().filter_map(|service| match service {
        Service::Dnstap(tap) => Some(tap),
        _ => None,
    })
}

/// Runs what blocks off the runtime's thread; its error as text.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    E: ToString + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("internal error while loading: please report it".to_owned()),
    }
}

/// CoreDNS's start lines: `ZONE:PORT on ADDRESS`, sorted within a listener, a warning before
/// zones that are no host names.
fn zone_lines(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for server in &snapshot.servers {
        let scheme = match server.transport.word() {
            "dns" => String::new(),
            word => format!("{word}://"),
        };
        let place = server.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
        let zones = server.zones.iter().filter_map(|(wire, _)| Name::parse(wire, 0).ok());
        let mut zones: Vec<(String, bool)> =
            zones.map(|(zone, _)| (zone.to_string(), has_preferred_syntax(&zone))).collect();
        zones.sort();
        for (zone, is_preferred) in zones {
            if !is_preferred {
                let zone = quote(&zone);
                lines.push(format!(
                    "Warning: Domain {zone} does not follow RFC1035 preferred syntax"
                ));
            }
            lines.push(format!("{scheme}{zone}:{}{place}", server.port));
        }
    }
    lines
}

/// Server, zone and handler word of `coredns_plugin_enabled`: blocks with `prometheus` and `bind`,
/// their first zone only, as CoreDNS has it.
fn enabled(snapshot: &Snapshot) -> Vec<(String, String, &'static str)> {
    let mut rows = Vec::new();
    for (index, block) in snapshot.blocks.iter().enumerate() {
        if !block.chain.iter().any(|handler| handler.word() == "prometheus") {
            continue;
        }
        let Some(key) = block.keys.first() else { continue };
        for server in snapshot.servers.iter().filter(|server| server.host.is_some()) {
            let serves = server
                .zones
                .iter()
                .any(|(zone, owner)| owner == index && zone == key.zone.as_bytes());
            if serves && server.port.to_string() == key.port {
                rows.extend(block.chain.iter().map(|handler| {
                    (server.identity.label.to_string(), key.zone.to_string(), handler.word())
                }));
            }
        }
    }
    rows
}
